import { SteepestError } from '../errors.js'
import { sameShape, showAval } from '../tensor/shape.js'
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

const assignRow = defineOp({
  name: 'assign',
  kind: 'kernel',
  doc: 'The value, in the memory of the state that it replaces.',
  attrs: {},
  infer: ([state, value]) => {
    if (!sameShape(state.shape, value.shape) || state.dtype !== value.dtype) {
      throw new SteepestError('SHAPE', {
        who: 'assign',
        rule: 'the value must have the shape and dtype of the state',
        got: `${showAval(value)} for ${showAval(state)}`,
      })
    }
    return [state]
  },
  vjp: ({ grads: [g] }) => [null, g],
  strided: [1],
  updates: () => [[0, 0]],
})

/** @internal `value` in the place of `state`: what a step leaves for the next. */
export const assign = (state: Tensor, value: Tensor): Tensor => assignRow([state, value], {})[0]

const accumulateRow = defineOp({
  name: 'accumulate',
  kind: 'kernel',
  doc: 'The sum of state and value, in the memory of the state.',
  attrs: {},
  infer: ([sum, value]) => {
    if (!sameShape(sum.shape, value.shape)) {
      throw new SteepestError('SHAPE', {
        who: 'accumulate',
        rule: 'the value must have the shape of the sum',
        got: `${showAval(value)} for ${showAval(sum)}`,
      })
    }
    return [sum]
  },
  vjp: 'an accumulation into state has no derivative',
  updates: () => [[0, 0]],
})

/** @internal `sum + value` in the place of `sum` (float32 for bfloat16 values): gradients of micro-batches. */
export const accumulate = (sum: Tensor, value: Tensor): Tensor => accumulateRow([sum, value], {})[0]

const guardRow = defineOp({
  name: 'guard',
  kind: 'kernel',
  faults: true,
  doc: 'The same value; a run ends here when it is not finite.',
  attrs: {},
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype }],
  vjp: ({ grads: [g] }) => [g],
  batch: ({ inputs }) => [guard(inputs[0])],
  inplace: [[0, 0]],
  impure: true,
})

/** @internal `x`; the run that meets a non-finite number here ends before anything after it. */
export const guard = (x: Tensor): Tensor => guardRow([x], {})[0]
