import { SteepestError } from '../errors.js'
import { BYTE_CHARS, GPT2_PATTERN, tokenBytes } from './bytelevel.js'
import { PairHeap } from './pairheap.js'
import {
  type DecodeOptions,
  type EncodeOptions,
  saveTokenizer,
  type StreamDecoder,
  type Tokenizer,
} from './tokenizer.js'

interface AddedToken {
  readonly id: number
  readonly content: string
  readonly special?: boolean
  readonly lstrip?: boolean
  readonly rstrip?: boolean
  readonly single_word?: boolean
}

interface ByteLevelJson {
  readonly added_tokens?: readonly AddedToken[]
  readonly model: {
    readonly vocab: Record<string, number>
    readonly merges: readonly (string | readonly [string, string])[]
  }
}

type Part =
  | { readonly type?: unknown; readonly add_prefix_space?: unknown; readonly use_regex?: unknown }
  | null
  | undefined

/** The parts of any `tokenizer.json` that are looked at. */
interface TokenizerJson {
  readonly normalizer?: unknown
  readonly pre_tokenizer?: Part
  readonly post_processor?: Part
  readonly decoder?: Part
  readonly model?: Readonly<Record<string, unknown>> & { readonly vocab?: Readonly<Record<string, unknown>> }
  readonly added_tokens?: readonly AddedToken[]
}

/** Whether a `tokenizer.json` is GPT-2's byte-level BPE and nothing more, so that {@link ByteLevelTokenizer} gives the same ids. */
export function isByteLevel(json: object): json is ByteLevelJson {
  const {
    normalizer,
    pre_tokenizer: pre,
    post_processor: post,
    decoder,
    model,
    added_tokens: added,
  } = json as TokenizerJson
  return (
    model?.type === 'BPE' &&
    !model.continuing_subword_prefix &&
    !model.end_of_word_suffix &&
    !model.byte_fallback &&
    !model.ignore_merges &&
    Array.isArray(model.merges) &&
    !normalizer &&
    pre?.type === 'ByteLevel' &&
    !pre.add_prefix_space &&
    pre.use_regex !== false &&
    (!post || post.type === 'ByteLevel') &&
    decoder?.type === 'ByteLevel' &&
    BYTE_CHARS.every((char) => Number.isInteger(model.vocab?.[char])) &&
    (added ?? []).every((t: AddedToken) => !t.lstrip && !t.rstrip && !t.single_word)
  )
}

/** Words whose tokens are remembered; natural text repeats its words. */
const CACHE = 1 << 17

const utf8 = () => new TextDecoder('utf-8', { ignoreBOM: true })

/**
 * GPT-2's byte-level byte-pair encoding: any text can be encoded, and decoding gives the same bytes. Without merges it is
 * a token per byte.
 */
export class ByteLevelTokenizer implements Tokenizer {
  readonly vocabSize: number
  readonly endOfText: number | undefined
  readonly cuttable = true
  private readonly byteIds: Int32Array
  private readonly bytes: (Uint8Array | undefined)[] = []
  private readonly added = new Map<string, AddedToken>()
  private readonly addedIds = new Map<number, AddedToken>()
  private readonly addedPattern: RegExp | undefined
  /** Rank of a merge by its pair; the token that it makes by its rank. */
  private readonly ranks = new Map<number, number>()
  private readonly merged: number[] = []
  private readonly cache = new Map<string, readonly number[]>()

  /** @internal Use `byteTokenizer`, `trainBpe` or `loadTokenizer`. */
  constructor(
    json: object,
    private readonly sources: Readonly<Record<string, string>>,
    endOfText: string | undefined,
  ) {
    const { model, added_tokens: added = [] } = json as ByteLevelJson
    const ids = new Map(Object.entries(model.vocab))
    for (const [token, id] of ids) this.bytes[id] = tokenBytes(token)
    for (const token of added) {
      this.added.set(token.content, token)
      this.addedIds.set(token.id, token)
    }
    this.vocabSize = Math.max(this.bytes.length, ...[...this.addedIds.keys()].map((id) => id + 1))
    this.byteIds = Int32Array.from(BYTE_CHARS, (char) => ids.get(char)!)
    const contents = [...this.added.keys()].sort((a, b) => b.length - a.length)
    if (contents.length)
      this.addedPattern = new RegExp(
        `(${contents.map((c) => c.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('|')})`,
        'u',
      )
    this.endOfText = endOfText === undefined ? undefined : (this.added.get(endOfText)?.id ?? ids.get(endOfText))
    model.merges.forEach((merge, rank) => {
      const [a, b] = typeof merge === 'string' ? merge.split(' ', 2) : merge
      const pair = [ids.get(a), ids.get(b), ids.get(a + b)]
      if (pair.some((id) => id === undefined)) {
        const got = JSON.stringify(merge)
        throw new SteepestError('FORMAT', {
          who: 'tokenizer.json',
          rule: 'a merge joins two tokens of the vocabulary to a third',
          got,
        })
      }
      const key = this.key(pair[0]!, pair[1]!)
      if (!this.ranks.has(key)) this.ranks.set(key, rank)
      this.merged.push(pair[2]!)
    })
  }

  private key(a: number, b: number): number {
    return a * this.vocabSize + b
  }

  encode(text: string, _options?: EncodeOptions): Int32Array {
    const out: number[] = []
    for (const section of this.addedPattern ? text.split(this.addedPattern) : [text]) {
      const added = this.added.get(section)
      if (added) out.push(added.id)
      else if (this.merged.length === 0) for (const byte of Buffer.from(section)) out.push(this.byteIds[byte])
      else for (const word of section.match(GPT2_PATTERN) ?? []) for (const id of this.word(word)) out.push(id)
    }
    return Int32Array.from(out)
  }

  private word(word: string): readonly number[] {
    const known = this.cache.get(word)
    if (known) return known
    const ids = this.merge(Array.from(Buffer.from(word), (byte) => this.byteIds[byte]))
    if (this.cache.size >= CACHE) this.cache.clear()
    this.cache.set(word, ids)
    return ids
  }

  /** Merges the pair of the lowest rank, the leftmost of equal ones, until there is none. */
  private merge(ids: number[]): readonly number[] {
    const next = ids.map((_, i) => i + 1)
    const previous = ids.map((_, i) => i - 1)
    const heap = new PairHeap()
    const offer = (i: number) => {
      if (i < 0 || next[i] >= ids.length) return
      const rank = this.ranks.get(this.key(ids[i], ids[next[i]]))
      if (rank !== undefined) heap.push(-rank, i)
    }
    for (let i = 0; i < ids.length; i++) offer(i)
    for (let top = heap.pop(); top; top = heap.pop()) {
      const i = top.pair
      const j = next[i]
      if (ids[i] < 0 || j >= ids.length || this.ranks.get(this.key(ids[i], ids[j])) !== -top.count) continue
      ids[i] = this.merged[-top.count]
      ids[j] = -1
      next[i] = next[j]
      if (next[i] < ids.length) previous[next[i]] = i
      offer(previous[i])
      offer(i)
    }
    return ids.filter((id) => id >= 0)
  }

  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const decoder = this.decodeStream(options)
    let text = ''
    for (let i = 0; i < ids.length; i++) text += decoder.push(ids[i])
    return text + decoder.end()
  }

  decodeStream({ skipSpecial = false }: DecodeOptions = {}): StreamDecoder {
    const decoder = utf8()
    return {
      push: (id) => {
        const added = this.addedIds.get(id)
        if (added) return decoder.decode() + (skipSpecial && added.special ? '' : added.content)
        const bytes = this.bytes[id]
        return bytes ? decoder.decode(bytes, { stream: true }) : `${decoder.decode()}\ufffd`
      },
      end: () => decoder.decode(),
    }
  }

  files(): Readonly<Record<string, string>> {
    return this.sources
  }

  save(dir: string): Promise<void> {
    return saveTokenizer(this, dir)
  }
}
