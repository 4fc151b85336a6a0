import { join } from 'node:path'
import { checkOptions, nearest, SteepestError } from '../errors.js'
import { atomicWriteFile, nodeFileSystem } from '../io/files.js'
import { readSmallFile } from '../io/read.js'
import { openSafetensors, type Safetensors, writeSafetensors } from '../io/safetensors.js'
import { type Context, namedTensors, withTensors } from '../nn/module.js'
import type { Outputs } from '../optim/index.js'
import type { DType } from '../tensor/dtype.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { bertFolder, robertaFolder } from './bert-folders.js'
import type { CausalLM } from './causal.js'
import { classifying } from './classifier.js'
import {
  type ConfigJson,
  ConfigReader,
  configText,
  type FolderFormat,
  keptKeys,
  type LoadOptions,
  type Origin,
} from './config-json.js'
import { decoderFolders } from './decoder-folders.js'
import { gpt2Folder } from './gpt2-folder.js'
import { resnetFolder, vitFolder } from './image-folders.js'
import { t5Folder } from './t5-folder.js'
import { loadTensor, sourceOf } from './tensors.js'

export type { ConfigJson, LoadOptions } from './config-json.js'

const FORMATS: readonly FolderFormat<never>[] = [
  ...[gpt2Folder, ...decoderFolders].map((f) => classifying(f as FolderFormat<never> as FolderFormat<CausalLM>)),
  bertFolder,
  robertaFolder,
  t5Folder,
  vitFolder,
  resnetFolder,
] as never

/** A model that a folder can hold. */
export interface FolderModel {
  loss(batch: never, ctx: Context): Outputs
  /** @internal The folder that it comes from. */
  origin?: Origin
}

/** `config.json` of a folder. */
async function readConfig(dir: string): Promise<ConfigJson> {
  const path = join(dir, 'config.json')
  const info = await nodeFileSystem.info(dir).catch(() => undefined)
  if (!info?.folder) {
    throw new SteepestError('FILE', {
      who: dir,
      rule: 'a model is a folder with config.json and model.safetensors',
      got: info ? 'a file' : 'nothing of that name',
      fix: 'Check the path',
    })
  }
  const text = new TextDecoder().decode(await readSmallFile(path))
  try {
    const json: unknown = JSON.parse(text)
    if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as ConfigJson
  } catch (error) {
    throw new SteepestError(
      'FORMAT',
      { who: path, rule: 'must be JSON', got: (error as Error).message.slice(0, 120) },
      { cause: error },
    )
  }
  throw new SteepestError('FORMAT', { who: path, rule: 'must hold a JSON object' })
}

function dtypeOf(file: Safetensors): DType {
  const kinds = new Set([...file.tensors.values()].map((t) => t.dtype))
  if (kinds.has('F64')) return 'float64'
  return kinds.has('BF16') && !kinds.has('F32') ? 'bfloat16' : 'float32'
}

/** The tensors of the file by their names in the model, all there and of the right shapes. */
function matched(
  dir: string,
  file: Safetensors,
  format: FolderFormat<never>,
  model: FolderModel,
  wanted: Readonly<Record<string, Tensor>>,
  fresh: (name: string) => boolean,
): Map<string, string> {
  const byName = new Map<string, string>()
  for (const { name, shape } of file.tensors.values()) {
    const own = format.nameOf(name, model as never)
    if (own === null) continue
    const target = wanted[own]
    if (fresh(own) && shape.join() !== target?.shape.join()) continue
    if (!target) {
      const near = nearest(own, Object.keys(wanted))
      throw new SteepestError('FORMAT', {
        who: dir,
        rule: `a ${format.type} of this config.json has no tensor ${name}`,
        fix: near ? `It has ${near}` : 'config.json and weights must come from the same save',
      })
    }
    if (shape.join() !== target.shape.join()) {
      throw new SteepestError('SHAPE', {
        who: `${dir}: ${name}`,
        rule: `config.json asks for ${showShape(target.shape)}`,
        got: showShape(shape),
        fix: 'config.json and weights must come from the same save',
      })
    }
    byName.set(own, name)
  }
  const missing = Object.keys(wanted).filter((name) => !byName.has(name) && !fresh(name))
  if (missing.length > 0) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : ''
    throw new SteepestError('FORMAT', {
      who: dir,
      rule: 'the weights of every layer must be there',
      got: `none for ${missing[0]}${more}`,
      fix: 'Copy all files of the model into the folder',
    })
  }
  return byName
}

/**
 * Loads a model from a Hugging Face folder (`config.json`, and `model.safetensors` or its shards with their index) or from a
 * checkpoint of steepest, which is such a folder. Weights go piece by piece from the file into native memory; other
 * element types are converted on the way.
 *
 * @throws SteepestError FILE, FORMAT, SHAPE or DTYPE that names the file, and the tensor where one is at fault
 */
export async function loadModel<M extends FolderModel = FolderModel>(
  dir: string,
  options: LoadOptions = {},
): Promise<M> {
  checkOptions('loadModel', options, ['dtype', 'dropout', 'head'])
  const config = await readConfig(dir)
  const format = FORMATS.find((f) => f.type === config.model_type)
  if (!format) {
    const known = FORMATS.map((f) => f.type).join(', ')
    throw new SteepestError('FORMAT', {
      who: join(dir, 'config.json'),
      rule: `\`model_type\` must be one that steepest has: ${known}`,
      got: JSON.stringify(config.model_type) ?? 'none',
    })
  }
  if (options.head && !format.isHead) {
    throw new SteepestError('OPTION', {
      who: dir,
      rule: 'this model has no head that tells classes',
      got: format.type,
      fix: 'Give rows with a label as `prompt` and `completion`',
    })
  }
  const file = await openSafetensors(dir)
  try {
    const dtype = options.dtype ?? dtypeOf(file)
    const reader = new ConfigReader(join(dir, 'config.json'), config)
    const model: M = format.build(reader, { dropout: 0, ...options, dtype })
    model.origin = new Map([['config', config]])
    const { parameters, state } = namedTensors(model)
    const wanted = { ...parameters, ...state }
    const { isHead } = format
    const fresh = (name: string) => options.head !== undefined && isHead!(name)
    const names = matched(dir, file, format, model, wanted, fresh)
    const loaded: Record<string, Tensor> = {}
    for (const [own, aval] of Object.entries(wanted)) {
      if (!names.has(own)) continue
      const name = names.get(own)!
      const place = file.placeOf(name, aval.dtype)
      loaded[own] = await loadTensor(aval, (take, as) => file.readPieces(name, take, as), place)
    }
    return withTensors(model, loaded)
  } finally {
    await file.close()
  }
}

/** @internal The name of one of the model's tensors by its name in a file. */
export const ownName = (model: FolderModel, fileName: string): string =>
  FORMATS.find((f) => f.keeps(model))?.nameOf(fileName, model as never) ?? fileName

/** @internal What the modules of transformers call one of the model's tensors, in all its versions. */
export const moduleNames = (model: FolderModel, name: string): readonly string[] =>
  FORMATS.find((f) => f.keeps(model))?.moduleNames?.(name) ?? [name]

/** `config.json` of a model, as Hugging Face writes it. */
export function configOf(model: unknown): ConfigJson {
  const format = FORMATS.find((f) => f.keeps(model))
  if (format) return { ...keptKeys((model as FolderModel).origin), ...format.config(model as never) }
  throw new SteepestError('ARGUMENT', {
    who: 'saveModel',
    rule: 'a folder can hold the models that steepest has',
    got: model?.constructor?.name ?? typeof model,
  })
}

/**
 * Writes a model as a Hugging Face folder: `config.json`, `model.safetensors`, and the files of `tokenizer` where one is given.
 * Each file as a whole or not at all; the same model gives the same bytes.
 *
 * @throws SteepestError FILE where a file cannot be written
 */
export async function saveModel(
  dir: string,
  model: FolderModel,
  tokenizer?: { files(): Readonly<Record<string, string>> },
): Promise<void> {
  const config = configOf(model)
  await nodeFileSystem.makeFolder(dir)
  const { parameters, state } = namedTensors(model)
  const format = FORMATS.find((f) => f.keeps(model))
  const sources = Object.entries({ ...parameters, ...state }).map(([own, t]) =>
    sourceOf(format?.fileNameOf?.(own) ?? own, t),
  )
  await writeSafetensors(join(dir, 'model.safetensors'), sources, { format: 'pt' })
  for (const [name, content] of Object.entries(tokenizer?.files() ?? {}))
    await atomicWriteFile(join(dir, name), content)
  await atomicWriteFile(join(dir, 'config.json'), configText(config))
}
