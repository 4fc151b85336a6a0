import { stopGradient } from '../ops/control.js'
import type { OpDef } from '../ops/define.js'
import { relu } from '../ops/elementwise.js'
import { maskBySigns, packSigns } from '../ops/signs.js'
import { makeNode, type Tensor } from '../tensor/tensor.js'

const row: OpDef = {
  name: 'signedRelu',
  kind: 'composite',
  doc: 'ReLU that keeps the signs of its values for its derivative.',
  attrs: {},
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype }],
  define: ([x]) => [relu(x)],
  vjp: ({ inputs: [, signs], grads: [g] }) => [maskBySigns(g!, signs), null],
}

/**
 * ReLU with the same values and derivatives that keeps one bit an element for the backward pass: where the layer behind it keeps some rows of its input
 * only, nothing else of it is needed.
 */
export const signedRelu = (x: Tensor): readonly Tensor[] => makeNode(row, [x, packSigns(stopGradient(relu(x)))], {})
