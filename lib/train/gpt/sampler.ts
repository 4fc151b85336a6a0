import { SteepestError } from '../../errors.js'
import { evaluate, launch, settled } from '../../graph/evaluate.js'
import { build, type Executable, Queue } from '../../graph/executable.js'
import { native, type NativeArena } from '../../addon.js'
import type { GPT2 } from '../../models/gpt2.js'
import { Context } from '../../nn/module.js'
import { take } from '../../ops/indexing.js'
import { fromStorage, reshape, tensor } from '../../ops/shape.js'
import { cast } from '../../ops/elementwise.js'
import { matmul } from '../../ops/matmul.js'
import { transpose } from '../../ops/shape.js'
import type { Tensor } from '../../tensor/tensor.js'
import { trace } from '../../transform/trace.js'
import { flatten } from '../../transform/tree.js'
import { type SampleOptions, sampleLogits } from '../sample.js'

/** How the next token is chosen. */
export interface SamplerOptions {
  /** Spread of the choice, ≥ 0; 0 takes the likeliest token. */
  temperature?: number
  /** Choose among this many likeliest tokens. */
  topK?: number
  /** Choose among the likeliest tokens that have this probability together, in (0, 1]. */
  topP?: number
  seed?: number
}

interface Compiled {
  executable: Executable
  captures: readonly Tensor[]
  out: Tensor
}

/** Shortest row that has a program of its own. */
const SHORTEST = 16

/** Chooses token after token with a GPT-2, one native program per row length (a power of two). */
export class Sampler {
  private readonly programs = new Map<number, Compiled>()
  private readonly where: { queue: Queue; arena: NativeArena }
  private readonly own: boolean

  /** @param where the queue and scratch of a training run whose model this is; its own where absent */
  constructor(
    private readonly model: GPT2,
    where?: { queue: Queue; arena: NativeArena },
  ) {
    this.own = where === undefined
    this.where = where ?? { queue: new Queue(), arena: new (native().Arena)() }
  }

  private compiled(length: number, choice: Omit<SampleOptions, 'key'>): Compiled {
    const known = this.programs.get(length)
    if (known) return known
    const f = (model: GPT2, ids: Tensor, at: Tensor, key: Tensor) => {
      const { width } = model.config
      const rows = reshape(model.hidden(ids, new Context()), [length, width])
      const logits = matmul(take(rows, at, { axis: 0 }), transpose(model.transformer.wte.weight))
      return sampleLogits(cast(logits, 'float32'), { ...choice, key })
    }
    const ids = tensor(new Int32Array(length), { shape: [1, length] })
    const { graph, captures } = trace('generate', f, [this.model, ids, tensor(new Int32Array(1)), tensor(new Int32Array(2))] as [GPT2, Tensor, Tensor, Tensor])
    const made = { executable: build(graph), captures, out: graph.outputs[0] }
    this.programs.set(length, made)
    return made
  }

  /** Tokens that go on from `prompt`, until `endOfText` or the reader stops. All but the last `context` tokens are forgotten. */
  async *generate(prompt: readonly number[], options: SamplerOptions = {}, endOfText?: number): AsyncGenerator<number> {
    const { temperature = 1, topK, topP, seed = 0 } = options
    const { context } = this.model.config
    if (prompt.length === 0) throw new SteepestError('ARGUMENT', { who: 'generate', rule: 'a prompt must have at least one token' })
    this.programs.clear()
    const weights = flatten(this.model).tensors
    evaluate(weights)
    await settled(weights)
    const ids = [...prompt]
    for (let n = 0; ; n++) {
      const row = ids.slice(-context)
      const length = Math.min(context, 2 ** Math.ceil(Math.log2(Math.max(SHORTEST, row.length))))
      const compiled = this.compiled(length, { temperature, topK, topP })
      const padded = new Int32Array(length)
      padded.set(row)
      const given = [tensor(padded, { shape: [1, length] }), tensor(Int32Array.of(row.length - 1)), tensor(Int32Array.of(seed | 0, n))]
      const inputs = [...weights, ...given, ...compiled.captures]
      const [storage] = launch(compiled.executable, inputs, [compiled.out], this.where)
      const chosen = fromStorage(storage, compiled.out)
      await settled([chosen])
      const token = Number((await chosen.read())[0])
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
