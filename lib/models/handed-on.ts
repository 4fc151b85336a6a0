import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { readSmallFile } from '../io/read.js'

/** Files of a model folder that are handed on as they are. */
const NAMES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'vocab.txt',
  'merges.txt',
  'spiece.model',
  'sentencepiece.bpe.model',
  'chat_template.jinja',
  'generation_config.json',
  'preprocessor_config.json',
]

/** What a model folder has beside its configuration and weights, by name. */
export async function handedOn(folder: string): Promise<Record<string, Uint8Array>> {
  const there = NAMES.filter((name) => existsSync(join(folder, name)))
  return Object.fromEntries(
    await Promise.all(there.map(async (name) => [name, await readSmallFile(join(folder, name))])),
  )
}
