import { existsSync } from 'node:fs'
import { extname, join } from 'node:path'
import { checkOptions, SteepestError } from '../errors.js'
import { atomicWriteFile } from '../io/files.js'
import type { DType } from '../tensor/dtype.js'
import { type GgufType, saveGguf } from './gguf/index.js'
import { handedOn } from './handed-on.js'
import { loadModel, saveModel } from './hf.js'
import { mergeAdapter } from './peft.js'

/** How a model is written anew. */
export interface ExportOptions {
  /** Folder of low-rank additions, as PEFT keeps them, that are added to the weights. */
  readonly adapter?: string
  /** Type of the matrices of a GGUF file; `f16` by default. */
  readonly type?: GgufType
  /** Numbers of the weights of a folder; those that it has by default. */
  readonly dtype?: DType
}

/**
 * Writes the model of a folder anew: as a Hugging Face folder, or as a GGUF file for llama.cpp where `out` ends in `.gguf`.
 *
 * @throws SteepestError FILE where `out` is there already; ARGUMENT or FORMAT for what a GGUF file cannot hold
 */
export async function exportModel(folder: string, out: string, options: ExportOptions = {}): Promise<void> {
  checkOptions('export', options, ['adapter', 'type', 'dtype'])
  const { adapter, type, dtype } = options
  const isGguf = extname(out) === '.gguf'
  if (existsSync(isGguf ? out : join(out, 'config.json')))
    throw new SteepestError('FILE', {
      who: out,
      rule: 'there is a model already, and nothing is written over',
      fix: 'Give another --out, or remove it',
    })
  if (type !== undefined && !isGguf)
    throw new SteepestError('OPTION', { who: 'export', rule: '`type` is for an --out that ends in .gguf', got: out })
  const loaded = await loadModel(folder, { dtype: isGguf ? undefined : dtype })
  const model = adapter === undefined ? loaded : await mergeAdapter(loaded, adapter)
  const files = await handedOn(folder)
  if (!isGguf) {
    await saveModel(out, model)
    for (const [name, content] of Object.entries(files)) await atomicWriteFile(join(out, name), content)
    return
  }
  if (!files['tokenizer.json'])
    throw new SteepestError('FILE', {
      who: folder,
      rule: 'a GGUF file holds the tokenizer, and there is no tokenizer.json',
    })
  const texts = Object.entries(files).map(([name, bytes]) => [name, new TextDecoder().decode(bytes)])
  await saveGguf(out, model, Object.fromEntries(texts) as Record<string, string>, type)
}
