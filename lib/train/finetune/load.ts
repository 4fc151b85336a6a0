import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { loadTokenizer } from '../../data/index.js'
import { readExamples } from '../../data/examples.js'
import { isFolder, readImageFolder } from '../../data/images.js'
import { SteepestError } from '../../errors.js'
import { type FolderModel, loadModel } from '../../models/hf.js'
import { readAll } from '../../graph/evaluate.js'
import { parameters } from '../../nn/module.js'
import { cast, isFinite, logicalNot } from '../../ops/elementwise.js'
import { sum } from '../../ops/reduce.js'
import { type Classes, classesOf, headOf } from './classes.js'
import { imageRows } from './image-rows.js'
import type { FinetuneOptions } from './options.js'
import { heldBack, type Rows, rowsFor } from './rows.js'

/** A model, and the rows that it is to learn. */
export interface Loaded {
  readonly model: FolderModel
  readonly rows: Rows
  readonly classes?: Classes
}

/** Options of a run whose model and data are named. */
type Named = FinetuneOptions & { model: string; data: string }

/** What is learned and what is held back, from one file or two. */
async function split<T>(
  options: Named,
  read: (path: string) => Promise<T[]>,
): Promise<Record<'all' | 'train' | 'validation', T[]>> {
  const all = await read(options.data)
  const parts = options.validationData
    ? { train: all, validation: await read(options.validationData) }
    : heldBack(all, options.validation ?? 0.1, options.seed ?? 1)
  if (parts.train.length > 0 && parts.validation.length > 0) return { all, ...parts }
  throw new SteepestError('DATA', {
    who: options.data,
    rule: 'there must be rows to learn and rows to validate on',
    got: `${all.length} rows`,
  })
}

/** An error that names the first weight that has a number which is not finite. */
async function requireFinite(folder: string, model: FolderModel): Promise<void> {
  const all = Object.entries(parameters(model))
  const wrong = await readAll(all.map(([, t]) => sum(cast(logicalNot(isFinite(t)), 'float32'))))
  const at = wrong.findIndex(([count]) => count > 0)
  if (at >= 0)
    throw new SteepestError('FORMAT', {
      who: `${folder}: ${all[at][0]}`,
      rule: 'weights must be finite numbers',
      got: `${wrong[at][0]} that are not`,
      fix: 'The file is damaged, or its training went wrong: take another checkpoint',
    })
}

async function loadImages(options: Named): Promise<Loaded> {
  const { model: folder, data, dtype, dropout } = options
  const parts = await split(options, readImageFolder)
  const names = [...new Set(parts.all.map((image) => image.label))]
  const stranger = parts.validation.find((image) => !names.includes(image.label))
  if (stranger)
    throw new SteepestError('DATA', {
      who: stranger.path,
      rule: 'the label must be one of the classes that are learned',
      got: stranger.label,
      fix: `They are ${names.slice(0, 6).join(', ')}${names.length > 6 ? ', …' : ''}`,
    })
  const classes: Classes = { task: 'sequence', problem: 'single', names }
  const model = await loadModel(folder, { dtype, dropout, head: headOf(classes) })
  await requireFinite(folder, model)
  return { model, classes, rows: await imageRows(model, folder, data, names, parts) }
}

/**
 * Loads what a run of `steepest finetune` needs.
 *
 * @throws SteepestError with the option, file or line that is wrong
 */
export async function load(options: Named): Promise<Loaded> {
  const { dtype, dropout, context, learnPrompts, model: folder, data: path } = options
  if (await isFolder(path)) return loadImages(options)
  const reads = (name: string) => existsSync(join(folder, name))
  if (reads('preprocessor_config.json') && !reads('tokenizer.json'))
    throw new SteepestError('DATA', {
      who: path,
      rule: 'a model of images learns from a folder that has a subfolder of images for each class',
      got: 'a file',
    })
  const tokenizer = await loadTokenizer(folder)
  const { all, train, validation } = await split(options, readExamples)
  const labelled = all.filter((e) => e.kind === 'label' || e.kind === 'tags')
  const classes = labelled.length > 0 ? classesOf(labelled) : undefined
  const head = classes && headOf(classes)
  const model = await loadModel(folder, { dtype, dropout, head })
  const { vocabSize } = (model as unknown as { config: { vocabSize: number } }).config
  if (tokenizer.vocabSize > vocabSize)
    throw new SteepestError('FORMAT', {
      who: folder,
      rule: 'the model must have an embedding for every token of its tokenizer',
      got: `${tokenizer.vocabSize} tokens, ${vocabSize} embeddings`,
      fix: 'config.json and tokenizer.json must come from the same save',
    })
  await requireFinite(folder, model)
  const common = { model, tokenizer, folder, path, context, learnPrompts, classes }
  return { model, classes, rows: await rowsFor({ ...common, train, validation }) }
}
