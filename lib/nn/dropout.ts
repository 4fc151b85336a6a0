import { SteepestError } from '../errors.js'
import { dropout } from '../ops/random.js'
import type { Tensor } from '../tensor/tensor.js'
import { type Context, Module } from './module.js'

/** While training, sets each element to zero with probability `p` and scales the others by 1/(1−p) (Srivastava et al. 2014). */
export class Dropout extends Module {
  readonly p: number

  constructor(p = 0.5) {
    super()
    if (!(p >= 0 && p < 1))
      throw new SteepestError('OPTION', { who: 'Dropout', rule: '`p` must be in [0, 1)', got: String(p) })
    this.p = p
  }

  forward(x: Tensor, ctx: Context): Tensor {
    if (!ctx.training || this.p === 0) return x
    return dropout(x, {
      p: this.p,
      key: ctx.requireKey('Dropout'),
      ids: x.rank > 0 && ctx.ids?.shape[0] === x.shape[0] ? ctx.ids : undefined,
      site: ctx.site(),
    })
  }
}
