import { setImmediate } from 'node:timers/promises'
import { checkOptions, SteepestError } from '../errors.js'
import { BYTE_CHARS, GPT2_PATTERN, textPieces } from './bytelevel.js'
import { PairHeap } from './pairheap.js'

/** How a byte-pair vocabulary is made. */
export interface BpeOptions {
  /** Tokens in all: 256 bytes, the merges, and the end-of-text token; 257 to 65536. Fewer where the text has no more pairs. */
  readonly vocabSize: number
  /** A pair that occurs less often is not merged; 2 where not given. */
  readonly minFrequency?: number
  /** The special token that ends a document; none where `null`. */
  readonly endOfText?: string | null
  /** Called now and then with the share that is done, 0 to 1. */
  readonly onProgress?: (done: number) => void
  readonly signal?: AbortSignal
}

/** The merges in their order; token i is byte i below 256, and `left[i - 256]` followed by `right[i - 256]` from there on. */
export interface Merges {
  readonly left: readonly number[]
  readonly right: readonly number[]
}

/** The name of the end-of-text token of GPT-2. */
export const END_OF_TEXT = '<|endoftext|>'

const MAX_VOCAB = 65536
/** Milliseconds for which work goes on before others are served. */
const BREATH = 8

/** Lets timers, signals and input be served when work has gone on for a while. */
function breather(signal?: AbortSignal): () => Promise<void> {
  let last = performance.now()
  return async () => {
    if (performance.now() - last < BREATH) return
    await setImmediate()
    signal?.throwIfAborted()
    last = performance.now()
  }
}

/** Distinct words and how often they occur, in the order of their first occurrence. */
async function countWords(
  text: string,
  separator: string | null,
  breathe: () => Promise<void>,
): Promise<Map<string, number>> {
  const counts = new Map<string, number>()
  for (const document of separator ? text.split(separator) : [text]) {
    for (const piece of textPieces(document)) {
      for (const word of piece.match(GPT2_PATTERN) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1)
      await breathe()
    }
  }
  return counts
}

/** All words as bytes, one after the other; a merge shortens a word in its place. */
class Words {
  readonly ids: Uint16Array
  readonly start: Int32Array
  readonly length: Int32Array
  readonly count: Float64Array

  constructor(words: Map<string, number>) {
    const encoded = [...words.keys()].map((word) => Buffer.from(word))
    this.ids = new Uint16Array(encoded.reduce((n, b) => n + b.length, 0))
    this.start = new Int32Array(words.size)
    this.length = Int32Array.from(encoded, (b) => b.length)
    this.count = Float64Array.from(words.values())
    let at = 0
    encoded.forEach((bytes, w) => {
      this.start[w] = at
      this.ids.set(bytes, at)
      at += bytes.length
    })
  }
}

/** How often each pair occurs, in which words, and which pair is the most frequent; kept up to date from merge to merge. */
class Pairs {
  private readonly counts = new Map<number, number>()
  private readonly words = new Map<number, number[]>()
  private readonly heap = new PairHeap()
  private readonly changes = new Map<number, number>()

  constructor(private readonly text: Words) {
    for (let w = 0; w < text.count.length; w++) {
      const end = text.start[w] + text.length[w] - 1
      for (let i = text.start[w]; i < end; i++) this.change(text.ids[i], text.ids[i + 1], text.count[w], w)
    }
    this.settle()
  }

  private change(a: number, b: number, by: number, word: number): void {
    const pair = a * MAX_VOCAB + b
    this.changes.set(pair, (this.changes.get(pair) ?? 0) + by)
    if (by < 0) return
    const words = this.words.get(pair)
    if (!words) this.words.set(pair, [word])
    else if (words[words.length - 1] !== word) words.push(word)
  }

  private settle(): void {
    for (const [pair, by] of this.changes) {
      if (by === 0) continue
      const count = (this.counts.get(pair) ?? 0) + by
      if (count > 0) {
        this.counts.set(pair, count)
        this.heap.push(count, pair)
      } else {
        this.counts.delete(pair)
        this.words.delete(pair)
      }
    }
    this.changes.clear()
  }

  /** The most frequent pair, of equal ones that with the lowest ids; `undefined` where none occurs `least` times. */
  best(least: number): [a: number, b: number] | undefined {
    for (let top = this.heap.pop(); top && top.count >= least; top = this.heap.pop()) {
      if (this.counts.get(top.pair) === top.count) return [Math.floor(top.pair / MAX_VOCAB), top.pair % MAX_VOCAB]
    }
    return undefined
  }

  merge(a: number, b: number, merged: number): void {
    const seen = new Set(this.words.get(a * MAX_VOCAB + b))
    for (const word of seen) this.mergeIn(word, a, b, merged)
    this.settle()
  }

  private mergeIn(w: number, a: number, b: number, merged: number): void {
    const { ids, start, length, count } = this.text
    const begin = start[w]
    const end = begin + length[w]
    const n = count[w]
    let out = begin
    for (let i = begin; i < end; i++) {
      if (ids[i] !== a || i + 1 === end || ids[i + 1] !== b) {
        ids[out++] = ids[i]
        continue
      }
      this.change(a, b, -n, w)
      if (out > begin) {
        this.change(ids[out - 1], a, -n, w)
        this.change(ids[out - 1], merged, n, w)
      }
      if (i + 2 < end) {
        this.change(b, ids[i + 2], -n, w)
        this.change(merged, ids[i + 2], n, w)
      }
      ids[out++] = merged
      i++
    }
    length[w] = out - begin
  }
}

/**
 * Finds the merges of a byte-level byte-pair vocabulary: again and again the most frequent pair of neighbours becomes a
 * token (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", algorithm 1), within the words
 * of GPT-2's pattern. The same text gives the same merges; equal counts go to the lower ids.
 *
 * @throws SteepestError OPTION, or DATA where the text is empty.
 */
export async function trainMerges(text: string, options: BpeOptions): Promise<Merges> {
  checkOptions('trainBpe', options, ['vocabSize', 'minFrequency', 'endOfText', 'onProgress', 'signal'])
  const { vocabSize, minFrequency = 2, endOfText = END_OF_TEXT, onProgress, signal } = options
  const special = endOfText === null ? 0 : 1
  if (!Number.isInteger(vocabSize) || vocabSize < 256 + special || vocabSize > MAX_VOCAB) {
    const rule = `vocabSize is an integer from ${256 + special} to ${MAX_VOCAB}`
    throw new SteepestError('OPTION', { who: 'trainBpe', rule, got: String(vocabSize) })
  }
  if (text.length === 0)
    throw new SteepestError('DATA', { who: 'trainBpe', rule: 'the text to learn a vocabulary from is not empty' })
  const breathe = breather(signal)
  const pairs = new Pairs(new Words(await countWords(text, endOfText, breathe)))
  const left: number[] = []
  const right: number[] = []
  const merges = vocabSize - 256 - special
  while (left.length < merges) {
    const pair = pairs.best(Math.max(1, minFrequency))
    if (!pair) break
    pairs.merge(pair[0], pair[1], 256 + left.length)
    left.push(pair[0])
    right.push(pair[1])
    if (left.length % 64 === 0) onProgress?.(left.length / merges)
    await breathe()
  }
  onProgress?.(1)
  return { left, right }
}

/** `tokenizer.json` as Hugging Face's libraries read it: GPT-2's byte-level BPE with these merges. */
export function bpeTokenizerJson({ left, right }: Merges, endOfText: string | null = END_OF_TEXT): object {
  const tokens = [...BYTE_CHARS]
  for (let i = 0; i < left.length; i++) tokens.push(tokens[left[i]] + tokens[right[i]])
  const vocab = tokens.map((token, id): [string, number] => [token, id])
  const added = {
    id: tokens.length,
    content: endOfText,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }
  if (endOfText !== null) vocab.push([endOfText, tokens.length])
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: endOfText === null ? [] : [added],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab),
      merges: left.map((a, i) => [tokens[a], tokens[right[i]]]),
    },
  }
}
