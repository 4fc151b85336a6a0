import { SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { defineOp, FLOATS, requireDtype } from './define.js'
import { everyBatched } from './indexing.js'

const packedShape = (who: string, x: Aval): number[] => {
  requireDtype(who, x, FLOATS)
  const width = x.shape.at(-1)
  if (width === undefined)
    throw new SteepestError('SHAPE', { who, rule: 'signs are packed along an axis', got: showAval(x) })
  return [...x.shape.slice(0, -1), Math.ceil(width / 8)]
}

const packSignsRow = defineOp({
  name: 'packSigns',
  kind: 'kernel',
  doc: 'Whether elements are above 0, eight to a byte along the last axis, the first in the lowest bit.',
  attrs: {},
  infer: ([x]) => [{ shape: packedShape('packSigns', x), dtype: 'uint8' }],
  vjp: 'its outputs are bits, which are constant almost everywhere',
  batch: ({ inputs }): Tensor[] => packSignsRow(inputs, {}),
  flops: ([x]) => sizeOf(x.shape),
})

const maskBySignsRow = defineOp({
  name: 'maskBySigns',
  kind: 'kernel',
  doc: 'The elements whose bit is set; 0 for the others.',
  attrs: {},
  infer: ([g, signs]) => {
    const shape = packedShape('maskBySigns', g)
    if (signs.dtype !== 'uint8' || !sameShape(signs.shape, shape)) {
      throw new SteepestError('SHAPE', {
        who: 'maskBySigns',
        rule: `the signs must be ${showAval({ shape, dtype: 'uint8' })}`,
        got: showAval(signs),
      })
    }
    return [{ shape: g.shape, dtype: g.dtype }]
  },
  vjp: ({ inputs: [, signs], grads: [g] }): (Tensor | null)[] => [maskBySignsRow([g!, signs], {})[0], null],
  batch: (ctx): Tensor[] => maskBySignsRow(everyBatched(ctx), {}),
  flops: ([g]) => sizeOf(g.shape),
  inplace: [[0, 0]],
})

/** @internal Whether elements of `x` [..., n] are above 0: uint8 [..., ⌈n/8⌉]. */
export const packSigns = (x: Tensor): Tensor => packSignsRow([x], {})[0]

/** @internal `g` [..., n] where the bit of `packSigns` is set, else 0. */
export const maskBySigns = (g: Tensor, signs: Tensor): Tensor => maskBySignsRow([g, signs], {})[0]
