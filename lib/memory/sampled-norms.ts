import { type Context, Module } from '../nn/module.js'
import { concat } from '../ops/assemble.js'
import { add, cast, equal, logicalAnd, mul, remainder, sqrt, where } from '../ops/elementwise.js'
import { take } from '../ops/indexing.js'
import { putRecords } from '../ops/sampling.js'
import { full, reshape, slice, zeros } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/** What stands before the norms of an example: its number and the width of the record. */
const HEAD = 2

/** What sampling remembers from step to step: part of the training state, and of its checkpoints. */
export class SamplingState extends Module {
  /**
   * Norms of the rows of output gradients as they were when an example was last seen: records of one example each, in the place that its
   * number has modulo the number of places. The layout depends on the lengths of a batch; a record of another layout or example is not used.
   */
  norms: Tensor | null

  constructor(bytes: number) {
    super()
    this.norms = bytes >= 4 ? zeros([Math.floor(bytes / 4)]) : null
  }

  override get buffers(): readonly string[] {
    return ['norms']
  }
}

/** The norms of one batch: `gains` of each site before, and what to keep of it after the gradient. */
export class NormRecords {
  private constructor(
    private readonly state: Tensor,
    private readonly slots: Tensor,
    private readonly head: readonly Tensor[],
    private readonly known: Tensor,
    private readonly hit: Tensor,
    private readonly lengths: readonly number[],
  ) {}

  /** @param lengths rows of an example at each site; undefined where nothing can be remembered: no ids, or no room for an example */
  static of(state: Tensor | null, ids: Tensor | undefined, lengths: readonly number[]): NormRecords | undefined {
    const width = lengths.reduce((n, t) => n + t, HEAD)
    const places = state ? Math.floor(state.size / width) : 0
    if (!state || !ids || lengths.length === 0 || places === 0) return undefined
    const [batch] = ids.shape
    const slots = remainder(ids, places)
    const table = reshape(slice(state, [[0, places * width]]), [places, width])
    const known = take(table, slots)
    const head = [reshape(add(cast(ids, 'float32'), 1), [batch, 1]), full([batch, 1], width, 'float32')]
    const column = (i: number) => slice(known, [null, [i, i + 1]])
    const hit = logicalAnd(equal(column(0), head[0]), equal(column(1), head[1]))
    return new NormRecords(state, slots, head, known, hit, lengths)
  }

  /** What is known of the rows [batch · length] of a site: −1 where nothing is. */
  gains(site: number): Tensor {
    const from = this.lengths.slice(0, site).reduce((n, t) => n + t, HEAD)
    const own = slice(this.known, [null, [from, from + this.lengths[site]]])
    return reshape(where(this.hit, own, -1), [-1])
  }

  /**
   * Remembers the norms of this step.
   *
   * @param squares of the rows of each site
   */
  write(ctx: Context, squares: readonly Tensor[]): void {
    const [batch] = this.slots.shape
    const norms = squares.map((s, i) => {
      const norm = cast(sqrt(s), 'float32')
      // In units that do not depend on how many labels the other examples of the step had.
      const own = ctx.normalizer ? mul(norm, ctx.normalizer) : norm
      return reshape(own, [batch, this.lengths[i]])
    })
    ctx.write(this.state, putRecords(this.state, this.slots, concat([...this.head, ...norms], { axis: 1 })))
  }
}
