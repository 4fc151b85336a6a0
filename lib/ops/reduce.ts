import type { Tensor } from '../tensor/tensor.js'
import { normalizeAxes } from '../tensor/shape.js'
import { defineOp } from './define.js'
import { broadcastTo, reshape } from './shape.js'
const row = defineOp<{axes: number[]}>({ name: 'reduce', kind: 'kernel', doc: '', attrs: { axes: 'ints' }, strided: 'all',
 infer: ([x], {axes}) => [{ shape: x.shape.filter((_, i) => !axes.includes(i)), dtype: x.dtype }],
 vjp: ({ inputs: [x], grads: [g], attrs: {axes} }) => [broadcastTo(reshape(g!, x.shape.map((d, i) => axes.includes(i) ? 1 : d)), x.shape)],
 batch: ({inputs: [x], attrs: {axes}}) => row([x], {axes: axes.map(a => a + 1)}) })
export const sum = (x: Tensor, o: { axis?: number | number[] } = {}): Tensor => row([x], { axes: normalizeAxes('sum', o.axis, x.rank) })[0]
