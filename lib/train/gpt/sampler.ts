import { SteepestError } from '../../errors.js'
import { evaluate, launch, settled } from '../../graph/evaluate.js'
import { build, type Executable, Queue } from '../../graph/executable.js'
import { native, type NativeArena } from '../../addon.js'
import type { CausalLM, Step } from '../../models/causal.js'
import { take } from '../../ops/indexing.js'
import { cast } from '../../ops/elementwise.js'
import { fromStorage, reshape, tensor, zeros } from '../../ops/shape.js'
import type { Tensor } from '../../tensor/tensor.js'
import { trace } from '../../transform/trace.js'
import { flatten } from '../../transform/tree.js'
import { sampleLogits } from '../sample.js'

/** How the next token is chosen. */
export interface SamplerOptions {
  /** Spread of the choice, ≥ 0; 0 takes the likeliest token. */
  temperature?: number
  /** Choose among this many likeliest tokens. */
  topK?: number
  /** Choose among the likeliest tokens that have this probability together, in (0, 1]. */
  topP?: number
  seed?: number
  /** Tokens that are expected at most, prompt included: caches are made for so many. The context of the model by default. */
  length?: number
}

type Choice = Required<Pick<SamplerOptions, 'temperature'>> & Pick<SamplerOptions, 'topK' | 'topP'>

/** A traced function, planned for one shape. */
interface Program {
  executable: Executable
  captures: readonly Tensor[]
  outputs: readonly Tensor[]
}

/** Shortest prompt that has a program of its own. */
const SHORTEST = 16
const powerOfTwo = (n: number): number => 2 ** Math.ceil(Math.log2(Math.max(SHORTEST, n)))

/**
 * Chooses token after token with a GPT-2. A prompt goes through the model at once (one native program per length, a power of two);
 * after that each token looks back at the keys and values of those before it.
 */
export class Sampler {
  private readonly programs = new Map<string, Program>()
  private readonly where: { queue: Queue; arena: NativeArena }
  private readonly own: boolean
  /** Weights first: what every program takes. */
  private readonly weights: readonly Tensor[]

  /** @param where the queue and scratch of a training run whose model this is; its own where absent */
  constructor(
    private readonly model: CausalLM,
    where?: { queue: Queue; arena: NativeArena },
  ) {
    this.own = where === undefined
    this.where = where ?? { queue: new Queue(), arena: new (native().Arena)() }
    this.weights = flatten(model).tensors
  }

  /** Plans `f(model, …inputs)` the first time that it is asked for under this name. */
  private program(
    name: string,
    f: (model: CausalLM, ...inputs: Tensor[]) => readonly Tensor[],
    inputs: readonly Tensor[],
  ): Program {
    let known = this.programs.get(name)
    if (!known) {
      const { graph, captures } = trace('generate', f, [this.model, ...inputs] as [CausalLM, ...Tensor[]])
      known = { executable: build(graph), captures, outputs: graph.outputs }
      this.programs.set(name, known)
    }
    return known
  }

  private run(program: Program, inputs: readonly Tensor[]): Tensor[] {
    const storages = launch(
      program.executable,
      [...this.weights, ...inputs, ...program.captures],
      program.outputs,
      this.where,
    )
    return storages.map((storage, i) => fromStorage(storage, program.outputs[i]))
  }

  /** The token that follows the hidden state of row `at`, and the cache. */
  private choose(model: CausalLM, { hidden, layers }: Step, at: Tensor, key: Tensor, choice: Choice): Tensor[] {
    const rows = reshape(hidden, [-1, model.config.width])
    const logits = model.logitsOf(take(rows, reshape(at, [1]), { axis: 0 }))
    return [sampleLogits(cast(logits, 'float32'), { ...choice, key }), ...layers.flatMap(({ k, v }) => [k, v])]
  }

  /**
   * Tokens that go on from `prompt`, until `endOfText` or the reader stops. When the context is full, the last half of it is read anew.
   *
   * @throws SteepestError ARGUMENT where the prompt is empty, OPTION where a choice is out of range
   */
  async *generate(prompt: readonly number[], options: SamplerOptions = {}, endOfText?: number): AsyncGenerator<number> {
    const { temperature = 1, topK, topP, seed = 0, length: expected = Number.POSITIVE_INFINITY } = options
    const choice: Choice = { temperature, topK, topP }
    const context = Math.min(this.model.config.context, powerOfTwo(expected))
    if (prompt.length === 0)
      throw new SteepestError('ARGUMENT', { who: 'generate', rule: 'a prompt must have at least one token' })
    evaluate(this.weights)
    await settled(this.weights)
    const name = JSON.stringify(choice)
    const ids = [...prompt]
    let cache: Tensor[] = []
    // Tokens that the cache holds.
    let filled = 0
    for (let n = 0; ; n++) {
      const key = tensor(Int32Array.of(seed | 0, n))
      let out: Tensor[]
      if (n === 0 || filled === context) {
        const row = ids.slice(n === 0 ? -context : -Math.max(1, context >> 1))
        const length = Math.min(context, powerOfTwo(row.length))
        const padded = new Int32Array(length)
        padded.set(row)
        const inputs = [tensor(padded, { shape: [1, length] }), tensor(row.length - 1, { dtype: 'int32' }), key]
        out = this.run(
          this.program(
            `prefill ${length} ${context} ${name}`,
            (model, tokens, at, k) => this.choose(model, model.prefill(tokens, context), at, k, choice),
            inputs,
          ),
          inputs,
        )
        filled = row.length
      } else {
        const inputs = [
          tensor(Int32Array.of(ids[ids.length - 1]), { shape: [1, 1] }),
          tensor(filled, { dtype: 'int32' }),
          key,
          ...cache,
        ]
        const step = (model: CausalLM, token: Tensor, at: Tensor, k: Tensor, ...flat: Tensor[]) => {
          const layers = Array.from({ length: model.config.layers }, (_, i) => ({ k: flat[2 * i], v: flat[2 * i + 1] }))
          return this.choose(model, model.decode(token, { layers, at }), zeros([], 'int32'), k, choice)
        }
        out = this.run(this.program(`decode ${context} ${name}`, step, inputs), inputs)
        filled++
      }
      cache = out.slice(1)
      const token = Number((await out[0].read())[0])
      if (token === endOfText) return
      ids.push(token)
      yield token
    }
  }

  close(): void {
    this.programs.clear()
    if (this.own) this.where.queue.close()
  }
}
