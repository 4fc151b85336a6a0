import type { Tensor } from '../tensor/tensor.js'
import { defineOp } from './define.js'

const allReduceRow = defineOp({
  name: 'allReduce',
  kind: 'kernel',
  doc: 'The sum over the processes that train together; the same value in one that trains alone.',
  attrs: {},
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype }],
  vjp: ({ grads: [g] }) => [allReduce(g!)],
  batch: ({ inputs }) => [allReduce(inputs[0])],
  inplace: [[0, 0]],
  impure: true,
})

/** @internal The sum of `x` (float) over the processes that train together, each of which gets it; all of them sum the same tensors in the same order. */
export const allReduce = (x: Tensor): Tensor => allReduceRow([x], {})[0]
