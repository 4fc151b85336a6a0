import { join } from 'node:path'
import { SteepestError } from '../errors.js'
import { nodeFileSystem } from '../io/files.js'
import { readSmallFile } from '../io/read.js'
import { bpeTokenizerJson, type BpeOptions, END_OF_TEXT, trainMerges } from './bpe.js'
import { ByteLevelTokenizer, isByteLevel } from './bytetokenizer.js'
import { HuggingFaceTokenizer } from './hftokenizer.js'
import type { Tokenizer } from './tokenizer.js'

const CONFIG = { tokenizer_class: 'PreTrainedTokenizerFast', clean_up_tokenization_spaces: false }

function ofJson(json: object, endOfText: string | null): ByteLevelTokenizer {
  const config =
    endOfText === null ? CONFIG : { ...CONFIG, bos_token: endOfText, eos_token: endOfText, unk_token: endOfText }
  const files = {
    'tokenizer.json': JSON.stringify(json, null, 1),
    'tokenizer_config.json': `${JSON.stringify(config, null, 2)}\n`,
  }
  return new ByteLevelTokenizer(json, files, endOfText ?? undefined)
}

/** A token per byte (ids 0 to 255), and the end of text (256) unless it is `null`. */
export function byteTokenizer(endOfText: string | null = END_OF_TEXT): ByteLevelTokenizer {
  return ofJson(bpeTokenizerJson({ left: [], right: [] }, endOfText), endOfText)
}

/**
 * Learns a byte-level byte-pair tokenizer from a text. The same text gives the same tokenizer.
 *
 * @throws SteepestError OPTION, or DATA where the text is empty.
 */
export async function trainBpe(text: string, options: BpeOptions): Promise<ByteLevelTokenizer> {
  const { endOfText = END_OF_TEXT } = options
  return ofJson(bpeTokenizerJson(await trainMerges(text, options), endOfText), endOfText)
}

/**
 * Loads a tokenizer from a `tokenizer.json` or a folder that holds one, as Hugging Face's libraries write it.
 *
 * @throws SteepestError FILE where it is missing, FORMAT where it is not valid.
 */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const info = await nodeFileSystem.info(path)
  const dir = info?.folder ? path : join(path, '..')
  const main = info?.folder ? join(path, 'tokenizer.json') : path
  const files: Record<string, string> = { 'tokenizer.json': await readText(main) }
  for (const name of ['tokenizer_config.json', 'special_tokens_map.json']) {
    if (await nodeFileSystem.info(join(dir, name))) files[name] = await readText(join(dir, name))
  }
  const json = parseObject(main, files['tokenizer.json'])
  const configText = files['tokenizer_config.json']
  const config = configText === undefined ? {} : parseObject(join(dir, 'tokenizer_config.json'), configText)
  const end = (config as { eos_token?: string | { content?: string } | null }).eos_token
  const endOfText = (typeof end === 'object' ? end?.content : end) ?? END_OF_TEXT
  try {
    if (isByteLevel(json)) return new ByteLevelTokenizer(json, files, endOfText)
    return new HuggingFaceTokenizer(json, config, files, endOfText)
  } catch (error) {
    if (error instanceof SteepestError) throw error
    const got = (error as Error).message
    throw new SteepestError(
      'FORMAT',
      { who: main, rule: 'it describes a tokenizer that steepest can run', got },
      { cause: error },
    )
  }
}

async function readText(path: string): Promise<string> {
  return new TextDecoder().decode(await readSmallFile(path))
}

function parseObject(path: string, text: string): object {
  try {
    const json: unknown = JSON.parse(text)
    if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json
  } catch (error) {
    throw new SteepestError('FORMAT', { who: path, rule: 'it is JSON', got: (error as Error).message.slice(0, 120) })
  }
  throw new SteepestError('FORMAT', { who: path, rule: 'it is a JSON object' })
}
