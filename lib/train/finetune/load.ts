import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { loadTokenizer } from '../../data/index.js'
import { isFolder, readImageFolder } from '../../data/images.js'
import { heldBack, readParts } from '../../data/parts.js'
import type { StoreOptions } from '../../data/row-store.js'
import { SteepestError } from '../../errors.js'
import { type FolderModel, loadModel } from '../../models/hf.js'
import { readAll } from '../../graph/evaluate.js'
import { parameters } from '../../nn/module.js'
import { cast, isFinite, logicalNot } from '../../ops/elementwise.js'
import { sum } from '../../ops/reduce.js'
import { type Classes, headOf, Labels } from './classes.js'
import { imageRows } from './image-rows.js'
import type { FinetuneOptions } from './options.js'
import { rowsFor } from './rows.js'
import type { Rows } from './stored-rows.js'

/** A model, and the rows that it is to learn. */
export interface Loaded {
  readonly model: FolderModel
  readonly rows: Rows
  readonly classes?: Classes
}

/** What the loading may be given beside the options. */
export interface LoadContext {
  /** Where rows go that are too many for memory. */
  storage?: StoreOptions
  /** Called now and then with what is being done and the share that is done, 0 to 1. */
  onProgress?: (what: string, done: number) => void
}

/** Options of a run whose model and data are named. */
type Named = FinetuneOptions & { model: string; data: string }

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
  const all = await readImageFolder(data)
  const held = heldBack(all.length, options.validation ?? 0.1, options.seed ?? 1)
  const parts = options.validationData
    ? { train: all, validation: await readImageFolder(options.validationData) }
    : { train: all.filter((_, i) => !held(i)), validation: all.filter((_, i) => held(i)) }
  const names = [...new Set(all.map((image) => image.label))]
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
export async function load(options: Named, { storage, onProgress }: LoadContext = {}): Promise<Loaded> {
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
  const labels = new Labels()
  const { validationData, validation = 0.1, seed = 1 } = options
  // Classes are those that are learned.
  const files = { data: path, validationData, validation, seed, onProgress }
  const parts = await readParts(files, ({ example, path: from }) => {
    if (from === path) labels.see(example, from)
  })
  const classes = labels.classes()
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
  const common = { model, tokenizer, folder, context, learnPrompts, classes, storage }
  return { model, classes, rows: await rowsFor({ ...common, parts }) }
}
