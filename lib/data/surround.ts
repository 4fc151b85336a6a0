import type { Tokenizer } from './tokenizer.js'

const PROBE = 'a'

/** What a tokenizer puts before and after a text ([CLS] and [SEP], <s> and </s>). */
export function surround(tokenizer: Tokenizer): { before: number[]; after: number[] } {
  const whole = [...tokenizer.encode(PROBE, { addSpecialTokens: true })]
  const bare = tokenizer.encode(PROBE)
  const at = whole.findIndex((_, i) => bare.every((id, j) => whole[i + j] === id))
  return at < 0 ? { before: [], after: [] } : { before: whole.slice(0, at), after: whole.slice(at + bare.length) }
}
