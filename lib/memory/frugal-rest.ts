import { cast, mul, neg, sign } from '../ops/elementwise.js'
import { argument } from '../optim/base.js'
import type { Tensor } from '../tensor/tensor.js'
import type { InSpace } from './projected.js'
import { wideOf } from './small.js'

/** To the nearest whole number, halves to the even one, as Python rounds. */
export function roundEven(x: number): number {
  const down = Math.floor(x)
  return x - down === 0.5 ? down + (down % 2) : Math.round(x)
}

/** @internal What a part without states is moved by, at a learning rate: its step, or none. */
export function stateless(
  outside: 'signSgd' | 'sgd' | 'none',
  { o, scale, args }: Pick<InSpace, 'o' | 'scale' | 'args'>,
  rest: Tensor,
  lrScale: number,
): Tensor | undefined {
  if (outside === 'none') return undefined
  const dtype = wideOf(o.p)
  const rate = cast(neg(mul(argument(args, 0), o.lrScale * lrScale)), dtype)
  if (outside === 'signSgd') return mul(sign(rest), rate)
  return mul(rest, scale ? mul(rate, cast(scale, dtype)) : rate)
}
