import type { Tokenizer } from '../../data/tokenizer.js'
import { checkOptions, SteepestError } from '../../errors.js'
import { CausalLM, type Writer } from '../../models/causal.js'
import type { FolderModel } from '../../models/hf.js'
import { T5 } from '../../models/t5.js'
import { type Choice, Sampler } from './sampler.js'
import { StopText } from './stops.js'

/** What a prompt may be: text, or the tokens that the model is to see. */
export type Prompt = string | readonly number[]

/** How text is written. */
export interface WriteOptions extends Choice {
  /** Tokens at most for each text; 200 by default. */
  readonly tokens?: number
  /** Seed of the choice; 1 by default. The same seed gives the same texts, in whatever batches they are written. */
  readonly seed?: number
  /** Texts for each prompt; 1 by default. */
  readonly samples?: number
  /** A text ends before the first of these, wherever tokens cut it. */
  readonly stop?: readonly string[]
  /** Tokens that end a text; those of the tokenizer and of the model's folder by default. */
  readonly ends?: readonly number[]
  /** Texts that are written at once; 16 by default. */
  readonly batch?: number
  readonly signal?: AbortSignal
}

/** Why a text ended. */
export type WriteEnd = 'endOfText' | 'stop' | 'length'

/** A piece of one of the texts; the last of a text says why it ended. */
export interface WrittenPiece {
  /** Number of the prompt. */
  readonly prompt: number
  /** Number of the text among those of its prompt. */
  readonly sample: number
  readonly text: string
  readonly end?: WriteEnd
}

/** A text that was written. */
export interface Written {
  readonly prompt: number
  readonly sample: number
  readonly text: string
  /** Its tokens, without one that ends it. */
  readonly tokens: readonly number[]
  readonly end: WriteEnd
}

const KNOWN = [
  'tokens',
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'seed',
  'samples',
  'stop',
  'ends',
  'batch',
  'signal',
]

const listed = (ids: unknown): number[] => [ids].flat().filter((id): id is number => Number.isInteger(id))

/** Tokens that end a text by what the tokenizer and `config.json` (or another file like it) say. */
export function endsOf(tokenizer: Tokenizer, ...files: readonly (Readonly<Record<string, unknown>> | undefined)[]) {
  return [...new Set([...listed(tokenizer.endOfText), ...files.flatMap((json) => listed(json?.eos_token_id))])]
}

/** The tokens of a prompt as the tokenizer begins a text; for a decoder, not as it ends one. */
function tokensOf(tokenizer: Tokenizer, model: Writer, prompt: Prompt): number[] {
  if (typeof prompt !== 'string') return [...prompt]
  const ids = [...tokenizer.encode(prompt, { addSpecialTokens: true })]
  const whole = model instanceof T5
  const bare = tokenizer.encode(prompt)
  // What the tokenizer puts behind a text would end it.
  if (!whole) while (ids.length > bare.length && ids.at(-1) !== bare.at(-1)) ids.pop()
  // The start of a text is what follows the end of another.
  if (ids.length === 0) ids.push(tokenizer.endOfText ?? tokenizer.encode('\n')[0] ?? 0)
  return ids
}

const isWriter = (model: unknown): model is Writer => model instanceof CausalLM || model instanceof T5

function requireCounts(options: WriteOptions): void {
  for (const key of ['tokens', 'samples', 'batch'] as const) {
    const value = options[key] ?? 1
    if (!Number.isSafeInteger(value) || value < 1)
      throw new SteepestError('OPTION', {
        who: 'generate',
        rule: `\`${key}\` must be a whole number of 1 or more`,
        got: String(value),
      })
  }
}

/** Texts that are being written: walked, their pieces come as they are written; awaited, they come as wholes. */
export class Generation implements AsyncIterable<WrittenPiece>, PromiseLike<Written[]> {
  private written: { text: string; tokens: number[]; end?: WriteEnd }[] = []
  private readonly prompts: readonly Prompt[]

  /** @internal Use `generate`. */
  constructor(
    private readonly model: Writer,
    private readonly tokenizer: Tokenizer,
    prompts: Prompt | readonly Prompt[],
    private readonly options: WriteOptions,
  ) {
    const one = typeof prompts === 'string' || typeof prompts[0] === 'number'
    this.prompts = (one ? [prompts] : prompts) as readonly Prompt[]
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WrittenPiece> {
    const { samples = 1, batch = 16 } = this.options
    this.written = Array.from({ length: this.prompts.length * samples }, () => ({ text: '', tokens: [] }))
    const sampler = new Sampler(this.model)
    const rows = this.prompts.map((p) => tokensOf(this.tokenizer, this.model, p))
    try {
      for (let from = 0; from < this.written.length; from += batch) {
        const numbers = Array.from({ length: Math.min(batch, this.written.length - from) }, (_, i) => from + i)
        for await (const [n, text, end] of this.batch(sampler, rows, numbers))
          yield { prompt: Math.floor(n / samples), sample: n % samples, text, ...(end ? { end } : {}) }
      }
    } finally {
      sampler.close()
    }
  }

  /** Pieces of some of the texts, by their numbers. */
  private async *batch(
    sampler: Sampler,
    prompts: readonly (readonly number[])[],
    numbers: readonly number[],
  ): AsyncGenerator<[number: number, text: string, end?: WriteEnd]> {
    const { model, tokenizer } = this
    const { tokens: most = 200, samples = 1, seed = 1, stop = [], signal } = this.options
    const rows = numbers.map((n) => prompts[Math.floor(n / samples)])
    const decoders = rows.map(() => tokenizer.decodeStream({ skipSpecial: true }))
    const stops = rows.map(() => new StopText(stop))
    const ended = rows.map(() => false)
    const longest = model instanceof T5 ? 1 : rows.reduce((n, row) => Math.max(n, row.length), 0)
    const {
      temperature = 0.8,
      topK,
      topP,
      minP,
      repetitionPenalty,
      ends = endsOf(tokenizer, configOf(model)),
    } = this.options
    const choice = { temperature, topK, topP, minP, repetitionPenalty }
    const stream = sampler.generate(rows, { ...choice, seed, ends, ids: numbers, length: longest + most }, ended)
    const open = new Set(rows.keys())
    for await (const drawn of stream) {
      for (const i of [...open]) {
        if (signal?.aborted) return
        const own = this.written[numbers[i]]
        const finished = drawn[i] < 0
        if (!finished) own.tokens.push(drawn[i])
        let text = stops[i].push(finished ? decoders[i].end() : decoders[i].push(drawn[i]))
        const full = own.tokens.length >= most
        if (full && !finished && !stops[i].stopped) text += stops[i].push(decoders[i].end())
        const end = stops[i].stopped ? 'stop' : finished ? 'endOfText' : full ? 'length' : undefined
        if (end) text += stops[i].end()
        own.text += text
        own.end = end
        if (end) {
          ended[i] = true
          open.delete(i)
        }
        if (text !== '' || end) yield [numbers[i], text, end]
      }
      if (open.size === 0) return
    }
  }

  then<A = Written[], B = never>(
    done?: ((texts: Written[]) => A | PromiseLike<A>) | null,
    failed?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.whole().then(done, failed)
  }

  private async whole(): Promise<Written[]> {
    for await (const _ of this);
    const { samples = 1 } = this.options
    return this.written.map(({ text, tokens, end }, n) => ({
      prompt: Math.floor(n / samples),
      sample: n % samples,
      text,
      tokens,
      end: end ?? 'length',
    }))
  }
}

const configOf = (model: Writer) => (model as unknown as FolderModel).origin?.get('config')

/**
 * Writes text with a model that predicts tokens (GPT-2, the Llama family, T5): on from prompts, or for T5 the targets of sources. Walked with
 * `for await`, the pieces of all texts come as they are written; awaited, the whole texts come.
 *
 * @param prompts one, or several, which are written in batches
 * @throws SteepestError ARGUMENT where the model cannot write, OPTION where a choice is out of range
 */
export function generate(
  model: FolderModel,
  tokenizer: Tokenizer,
  prompts: Prompt | readonly Prompt[],
  options: WriteOptions = {},
): Generation {
  checkOptions('generate', options, KNOWN)
  requireCounts(options)
  const writer: unknown = model
  if (isWriter(writer)) return new Generation(writer, tokenizer, prompts, options)
  throw new SteepestError('ARGUMENT', {
    who: 'generate',
    rule: 'text is written by models that predict the next token',
    got: model.constructor.name,
  })
}
