import { SteepestError } from '../../errors.js'
import type { GgufValue } from './file.js'

/** What is read of the files of a tokenizer. */
interface TokenizerJson {
  model?: {
    type?: string
    vocab?: Record<string, number>
    merges?: (string | [string, string])[]
    byte_fallback?: boolean
  }
  pre_tokenizer?: PreTokenizer | null
  added_tokens?: { id: number; content: string; special?: boolean }[]
}
interface PreTokenizer {
  type: string
  use_regex?: boolean
  pretokenizers?: PreTokenizer[]
  pattern?: { Regex?: string }
}

/** How llama.cpp calls ways to cut text, by their patterns in `tokenizer.json`. */
const PATTERNS: readonly (readonly [name: string, includes: string])[] = [
  ['llama-bpe', '\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'],
  ['qwen2', '\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'],
]

const TYPES = { normal: 1, control: 3, own: 4, unused: 5 } as const

function refuse(who: string, rule: string, got: string): never {
  throw new SteepestError('FORMAT', {
    who,
    rule: `for a GGUF file ${rule}`,
    got,
    fix: "Write a Hugging Face folder and convert it with llama.cpp's convert_hf_to_gguf.py",
  })
}

function preOf(who: string, pre: PreTokenizer | null | undefined): string {
  const all = pre?.type === 'Sequence' ? (pre.pretokenizers ?? []) : pre ? [pre] : []
  if (all.length === 1 && all[0].type === 'ByteLevel' && all[0].use_regex !== false) return 'gpt-2'
  const split = all.find((p) => p.type === 'Split')?.pattern?.Regex ?? ''
  const known = PATTERNS.find(([, pattern]) => split.endsWith(pattern) && split.includes(`?\\p{L}+|${pattern}`))
  if (known && all.some((p) => p.type === 'ByteLevel')) return known[0]
  return refuse(
    who,
    'the tokenizer must cut text as GPT-2, Llama 3 or Qwen 2 do',
    split || all.map((p) => p.type).join(', '),
  )
}

/** The header's part about the tokenizer: byte-level pairs, the only kind that is written. */
export function ggufTokenizer(
  dir: string,
  files: Readonly<Record<string, string>>,
  vocabSize: number,
): Record<string, GgufValue> {
  const json = JSON.parse(files['tokenizer.json']) as TokenizerJson
  const config = JSON.parse(files['tokenizer_config.json'] ?? '{}') as Record<string, unknown>
  const { model, added_tokens: added = [] } = json
  if (model?.type !== 'BPE' || model.byte_fallback || !model.vocab)
    refuse(
      dir,
      'the tokenizer must be of byte-level pairs',
      `${model?.type}${model?.byte_fallback ? ' of SentencePiece' : ''}`,
    )
  const tokens = Array.from({ length: vocabSize }, (_, i) => `[PAD${i}]`)
  const types = new Array<number>(vocabSize).fill(TYPES.unused)
  const put = (token: string, id: number, type: number) => {
    tokens[id] = token
    types[id] = type
  }
  for (const [token, id] of Object.entries(model!.vocab!)) put(token, id, TYPES.normal)
  for (const { id, content, special } of added) put(content, id, special ? TYPES.control : TYPES.own)
  if (tokens.length !== vocabSize)
    refuse(dir, 'the model must have an embedding for every token', `${tokens.length} tokens, ${vocabSize} embeddings`)
  const idOf = (name: string): number => {
    const given = config[name]
    const content = typeof given === 'string' ? given : (given as { content?: string } | null | undefined)?.content
    return content === undefined ? -1 : tokens.indexOf(content)
  }
  const ids = { bos: 'bos_token', eos: 'eos_token', unknown: 'unk_token', padding: 'pad_token' } as const
  const special = Object.entries(ids).flatMap(([key, name]) => {
    const id = idOf(name)
    return id < 0 ? [] : [[`tokenizer.ggml.${key}_token_id`, { type: 'uint32', value: id }] as const]
  })
  const merges = (model!.merges ?? []).map((m) => (typeof m === 'string' ? m : m.join(' ')))
  const template = config.chat_template ?? files['chat_template.jinja']
  return {
    'tokenizer.ggml.model': { type: 'string', value: 'gpt2' },
    'tokenizer.ggml.pre': { type: 'string', value: preOf(dir, json.pre_tokenizer) },
    'tokenizer.ggml.tokens': { type: 'strings', value: tokens },
    'tokenizer.ggml.token_type': { type: 'int32s', value: types },
    'tokenizer.ggml.merges': { type: 'strings', value: merges },
    ...(Object.fromEntries(special) as Record<string, GgufValue>),
    'tokenizer.ggml.add_bos_token': { type: 'bool', value: config.add_bos_token === true },
    ...(typeof template === 'string'
      ? { 'tokenizer.chat_template': { type: 'string', value: template } as const }
      : {}),
  }
}
