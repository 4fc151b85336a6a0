import type { Tensor } from '../tensor/tensor.js'
import { defineOp } from './define.js'

const stopRow = defineOp({
  name: 'stopGradient',
  kind: 'view',
  doc: 'The same value, through which no gradient flows.',
  attrs: {},
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype }],
  vjp: () => [null],
  batch: ({ inputs }) => [stopGradient(inputs[0])],
})

/** The value of `x` as a constant: no gradient flows through it. */
export const stopGradient = (x: Tensor): Tensor => stopRow([x], {})[0]
