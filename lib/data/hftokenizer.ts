import { createRequire } from 'node:module'
import { SteepestError } from '../errors.js'
import {
  type DecodeOptions,
  type EncodeOptions,
  saveTokenizer,
  type StreamDecoder,
  type Tokenizer,
} from './tokenizer.js'

/** What is used of Hugging Face's library. Its own declarations (0.2.0) do not resolve in a project of ES modules. */
interface Library {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[]; tokens: string[] }
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string
  get_vocab(): Map<string, number>
  token_to_id(token: string): number | undefined
  id_to_token(id: number): string | undefined
}

/** The library is loaded when a tokenizer needs it. */
const makeLibrary = (json: object, config: object): Library => {
  const { Tokenizer } = createRequire(import.meta.url)('@huggingface/tokenizers') as {
    Tokenizer: new (json: object, config: object) => Library
  }
  return new Tokenizer(json, config)
}

const UNKNOWN = '\ufffd'

/** Any tokenizer of a `tokenizer.json`, run by Hugging Face's library. */
export class HuggingFaceTokenizer implements Tokenizer {
  readonly vocabSize: number
  readonly endOfText: number | undefined
  readonly cuttable = false
  private readonly library: Library
  /** Id of the unknown token: the library leaves ids out that a word-level vocabulary does not have. */
  private readonly unknown: number | undefined

  /** @internal Use `loadTokenizer`. */
  constructor(
    json: object,
    config: object,
    private readonly sources: Readonly<Record<string, string>>,
    endOfText: string | undefined,
  ) {
    const complete = {
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      ...json,
    }
    this.library = makeLibrary(complete, config)
    let size = 0
    for (const id of this.library.get_vocab().values()) size = Math.max(size, id + 1)
    this.vocabSize = size
    const { unk_token: unknown } = (json as { model?: { unk_token?: unknown } }).model ?? {}
    this.unknown = typeof unknown === 'string' ? this.library.token_to_id(unknown) : undefined
    this.endOfText = endOfText === undefined ? undefined : this.library.token_to_id(endOfText)
  }

  encode(text: string, { addSpecialTokens = false }: EncodeOptions = {}): Int32Array {
    if (text === '' && !addSpecialTokens) return new Int32Array(0)
    const { ids, tokens } = this.library.encode(text, { add_special_tokens: addSpecialTokens })
    const missing = ids.indexOf(undefined)
    if (missing >= 0) {
      if (this.unknown !== undefined) return Int32Array.from(ids, (id) => id ?? this.unknown!)
      const got = JSON.stringify(tokens[missing])
      throw new SteepestError('DATA', {
        who: 'tokenizer',
        rule: 'the vocabulary has every token of the text or an unknown token',
        got,
      })
    }
    return Int32Array.from(ids as number[])
  }

  decode(ids: ArrayLike<number>, { skipSpecial = false }: DecodeOptions = {}): string {
    let text = ''
    let run: number[] = []
    const flush = () => {
      if (run.length)
        text += this.library.decode(run, { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false })
      run = []
    }
    for (let i = 0; i < ids.length; i++) {
      if (this.library.id_to_token(ids[i]) !== undefined) run.push(ids[i])
      else {
        flush()
        text += UNKNOWN
      }
    }
    flush()
    return text
  }

  /**
   * What a token adds depends on those before it (spaces, bytes of one character). So a few tokens of context are decoded
   * without and with the new ones, and the difference is given out once it does not end within a character.
   */
  decodeStream(options: DecodeOptions = {}): StreamDecoder {
    let context: number[] = []
    let fresh: number[] = []
    const difference = () => this.decode([...context, ...fresh], options).slice(this.decode(context, options).length)
    return {
      push: (id) => {
        fresh.push(id)
        const text = difference()
        if (text === '' || (text.endsWith(UNKNOWN) && fresh.length < 8)) return ''
        context = fresh
        fresh = []
        return text
      },
      end: () => {
        const text = difference()
        context = fresh = []
        return text
      },
    }
  }

  files(): Readonly<Record<string, string>> {
    return this.sources
  }

  save(dir: string): Promise<void> {
    return saveTokenizer(this, dir)
  }
}
