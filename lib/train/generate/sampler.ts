import { native, type NativeArena } from '../../addon.js'
import { SteepestError } from '../../errors.js'
import { evaluate, launch, settled } from '../../graph/evaluate.js'
import { build, type Executable, Queue } from '../../graph/executable.js'
import type { Cache, Step, Writer } from '../../models/causal.js'
import { arange } from '../../ops/assemble.js'
import { add, cast, equal, mul, where } from '../../ops/elementwise.js'
import { take } from '../../ops/indexing.js'
import { fromStorage, reshape, tensor } from '../../ops/shape.js'
import type { Tensor } from '../../tensor/tensor.js'
import { trace, type Traced } from '../../transform/trace.js'
import { flatten } from '../../transform/tree.js'
import { penalized, sampleLogits } from '../sample.js'

/** How the next token is chosen. */
export interface Choice {
  /** Spread of the choice, ≥ 0; 0 takes the likeliest token; 1 by default. */
  readonly temperature?: number
  /** Choose among this many likeliest tokens. */
  readonly topK?: number
  /** Choose among the likeliest tokens that have this probability together, in (0, 1]. */
  readonly topP?: number
  /** Choose among tokens that have at least this share of the likeliest one's probability, in [0, 1]. */
  readonly minP?: number
  /** Logits of tokens that are in the row already are divided by this where positive and multiplied where negative; above 0, 1 by default. */
  readonly repetitionPenalty?: number
}

/** How rows go on. */
export interface SamplerOptions extends Choice {
  readonly seed?: number
  /** Tokens of the longest row that are expected at most, prompt included: caches are made for so many. The context of the model by default. */
  readonly length?: number
  /** Tokens that end a row; they are not given out. */
  readonly ends?: readonly number[]
  /** Numbers of the rows, to which random numbers belong; by default 0 and on. */
  readonly ids?: readonly number[]
}

/** What goes from token to token beside the rows themselves. */
interface State extends Omit<Cache, 'at' | 'reach'> {
  /** 1 where a token of the vocabulary is in the row, uint8 [B, V]. */
  readonly seen?: Tensor
}

/** What a program takes that changes with every token. */
type Moving = Readonly<Record<'ids' | 'key' | 'inputIds', Tensor>>

interface Program {
  executable: Executable
  traced: Traced<{ token: Tensor; state: State }>
}

/** Shortest prompt that has a program of its own. */
const SHORTEST = 16
/** Where a model sets no end and nobody says how much is expected. */
const ROOM = 512
const powerOfTwo = (n: number): number => 2 ** Math.ceil(Math.log2(Math.max(SHORTEST, n)))
const ints = (data: ArrayLike<number>, shape: readonly number[] = [data.length]) =>
  tensor(Int32Array.from(data), { shape })

/** Rows of different lengths as one, filled up at the right. */
function filledUp(rows: readonly (readonly number[])[], length: number): { inputIds: Tensor; attentionMask: Tensor } {
  const [ids, mask] = [new Int32Array(rows.length * length), new Int32Array(rows.length * length)]
  rows.forEach((row, i) => {
    ids.set(row, i * length)
    mask.fill(1, i * length, i * length + row.length)
  })
  const shape = [rows.length, length]
  return { inputIds: tensor(ids, { shape }), attentionMask: tensor(mask, { shape }) }
}

/**
 * Chooses token after token of several rows with a model that writes. Prompts go through the model at once (a native program per length, a
 * power of two); after that each token looks back at the keys and values of those before it.
 */
export class Sampler {
  private readonly programs = new Map<string, Program>()
  private readonly where: { queue: Queue; arena: NativeArena }
  private readonly own: boolean
  /** Weights first: what every program takes. */
  private readonly weights: readonly Tensor[]

  /** @param where the queue and scratch of a training run whose model this is; its own where absent */
  constructor(
    private readonly model: Writer,
    where?: { queue: Queue; arena: NativeArena },
  ) {
    this.own = where === undefined
    this.where = where ?? { queue: new Queue(), arena: new (native().Arena)() }
    this.weights = flatten(model).tensors
  }

  /** Runs `f(model, inputs)`, planned the first time that it is asked for under this name. */
  private run<I>(name: string, f: (model: Writer, inputs: I) => { token: Tensor; state: State }, inputs: I) {
    let known = this.programs.get(name)
    if (!known) {
      const traced = trace('generate', f, [this.model, inputs] as [Writer, I])
      known = { executable: build(traced.graph), traced }
      this.programs.set(name, known)
    }
    const { executable, traced } = known
    const { outputs } = traced.graph
    const given = flatten(inputs).tensors
    const storages = launch(executable, [...this.weights, ...given, ...traced.captures], outputs, this.where)
    return traced.out.unflatten(storages.map((storage, i) => fromStorage(storage, outputs[i])))
  }

  /** The tokens that follow the hidden states at `at` of the rows, and what further ones need. */
  private choose(model: Writer, step: Step, at: Tensor, { key, ids }: Moving, choice: Choice, before: State) {
    const [batch, time] = step.hidden.shape
    const places = add(at, mul(arange(0, batch, { dtype: 'int32' }), time))
    const last = take(reshape(step.hidden, [batch * time, -1]), places, { axis: 0 })
    const { repetitionPenalty: penalty = 1, ...rest } = choice
    const { seen } = before
    const logits = cast(model.logitsOf(last), 'float32')
    const token = sampleLogits(seen ? penalized(logits, seen, penalty) : logits, { ...rest, key, ids })
    const here = equal(arange(0, model.config.vocabSize, { dtype: 'int32' }), reshape(token, [batch, 1]))
    const source = step.source ?? before.source
    const state = {
      layers: step.layers,
      ...(source ? { source } : {}),
      ...(seen ? { seen: where(here, 1, seen) } : {}),
    }
    return { token, state }
  }

  /** What rows have said so far, for a penalty; nothing where there is none. */
  private seenOf(rows: readonly (readonly number[])[], { repetitionPenalty = 1 }: Choice): Pick<State, 'seen'> {
    if (repetitionPenalty === 1) return {}
    const { vocabSize } = this.model.config
    const seen = new Uint8Array(rows.length * vocabSize)
    rows.forEach((row, i) => {
      for (const id of row) if (id >= 0 && id < vocabSize) seen[i * vocabSize + id] = 1
    })
    return { seen: tensor(seen, { shape: [rows.length, vocabSize] }) }
  }

  /**
   * Tokens that go on from `prompts`, one of each row at a time, until every row has ended or the reader stops; −1 stands for a row that has.
   * A row that fills the context goes on from its last half. For a model with an encoder the prompts are what that reads.
   *
   * @param ended which rows have ended; the reader may end some too
   * @throws SteepestError ARGUMENT where a prompt is empty, OPTION where a choice is out of range
   */
  async *generate(
    prompts: readonly (readonly number[])[],
    options: SamplerOptions = {},
    ended: boolean[] = prompts.map(() => false),
  ): AsyncGenerator<number[]> {
    const { seed = 0, length: expected = Number.POSITIVE_INFINITY, ends = [], ids = prompts.map((_, i) => i) } = options
    const { temperature = 1, topK, topP, minP, repetitionPenalty } = options
    const choice: Choice = { temperature, topK, topP, minP, repetitionPenalty }
    const { model } = this
    const { startId } = model.config as { startId?: number }
    const reads = startId !== undefined
    if (prompts.length === 0 || prompts.some((p) => p.length === 0))
      throw new SteepestError('ARGUMENT', { who: 'generate', rule: 'a prompt must have at least one token' })
    const most = Number.isFinite(expected) ? expected : Math.min(model.longest, ROOM)
    const context = Math.min(model.longest, powerOfTwo(most))
    const [first] = this.weights
    evaluate(this.weights)
    await settled(this.weights)
    const name = `${prompts.length} ${first.dtype} ${JSON.stringify(choice)}`
    // Rows that a decoder has behind it.
    const rows = prompts.map((p) => (reads ? [startId] : [...p]))
    let state: State | undefined
    // Tokens of each row that the cache holds.
    let filled: number[] = []
    for (let n = 0; ended.includes(false); n++) {
      const moving = { key: ints([seed | 0, n]), ids: ints(ids) }
      let out: { token: Tensor; state: State }
      if (reads && rows[0].length > context)
        throw new SteepestError('ARGUMENT', {
          who: 'generate',
          rule: 'targets must not be longer than was expected',
          got: `${rows[0].length} tokens for ${context}`,
        })
      if (!state || filled.includes(context)) {
        const full = (row: readonly number[]) => row.length >= context && (state !== undefined || row.length > context)
        const given = reads
          ? prompts
          : rows.map((row) => (full(row) ? row.slice(-(state ? Math.max(1, context >> 1) : context)) : row))
        const longest = given.reduce((most, row) => Math.max(most, row.length), 0)
        const length = Math.min(reads ? Number.POSITIVE_INFINITY : context, powerOfTwo(longest))
        const reach = model.reachOf(longest)
        const last = ints(given.map((row) => (reads ? 0 : row.length - 1)))
        const inputs = { ...moving, ...filledUp(given, length), last, ...this.seenOf(rows, choice) }
        out = this.run(
          `prefill ${length} ${context} ${reach} ${name}`,
          (model, { last, seen, attentionMask, ...moving }) => {
            const step = model.prefill({ inputIds: moving.inputIds, attentionMask }, { length: context, reach })
            return this.choose(model, step, last, moving, choice, { layers: [], ...(seen ? { seen } : {}) })
          },
          inputs,
        )
        filled = given.map((row) => (reads ? 1 : row.length))
      } else {
        const reach = model.reachOf(Math.max(...filled) + 1)
        const inputIds = ints(
          rows.map((row) => row[row.length - 1]),
          [rows.length, 1],
        )
        const inputs = { ...moving, inputIds, at: ints(filled), state }
        const source = state.source?.keyMask.shape[1] ?? 0
        out = this.run(
          `decode ${context} ${source} ${reach} ${name}`,
          (model, { at, state, ...moving }) => {
            const step = model.decode(moving.inputIds, { ...state, at, reach })
            return this.choose(model, step, mul(at, 0), moving, choice, state)
          },
          inputs,
        )
        filled = filled.map((n) => n + 1)
      }
      state = out.state
      const tokens = [...(await out.token.read())].map(Number)
      tokens.forEach((token, i) => {
        rows[i].push(token)
        if (ends.includes(token)) ended[i] = true
      })
      yield tokens.map((token, i) => (ended[i] ? -1 : token))
    }
  }

  close(): void {
    this.programs.clear()
    if (this.own) this.where.queue.close()
  }
}
