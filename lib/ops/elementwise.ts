import { broadcastShapes } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { defineOp, type BatchContext } from './define.js'
import { broadcastTo, scalar, reshape } from './shape.js'
type T = Tensor | number
const batch = (row: any) => (ctx: BatchContext<any>) => {
  const r = Math.max(...ctx.inputs.map((t, i) => t.rank - (ctx.batched[i] ? 1 : 0)))
  const ins = ctx.inputs.map((t, i) => ctx.batched[i] ? reshape(t, [ctx.size, ...new Array(r - t.rank + 1).fill(1), ...t.shape.slice(1)]) : t)
  const shape = broadcastShapes('x', ...ins.map(t => t.shape))
  return row(ins.map(t => broadcastTo(t, shape)), ctx.attrs)
}
const bin = (name: string, vjp: any) => {
  const row: any = defineOp({ name, kind: 'elementwise', doc: '', attrs: {}, infer: ([a]) => [a], vjp, batch: (c) => batch(row)(c) })
  return (a: T, b: T): Tensor => {
    const like = (a instanceof Tensor ? a : b) as Tensor
    const x = a instanceof Tensor ? a : scalar(a, like.dtype), y = b instanceof Tensor ? b : scalar(b, like.dtype)
    const s = broadcastShapes(name, x.shape, y.shape)
    return row([broadcastTo(x, s), broadcastTo(y, s)], {})[0]
  }
}
const un = (name: string, vjp: any) => {
  const row: any = defineOp({ name, kind: 'elementwise', doc: '', attrs: {}, infer: ([a]) => [a], vjp, batch: (c) => batch(row)(c) })
  return (a: Tensor): Tensor => row([a], {})[0]
}
export const add = bin('add', ({ grads: [g] }: any) => [g, g])
export const mul = bin('mul', ({ inputs: [a, b], grads: [g] }: any) => [mul(g, b), mul(g, a)])
export const exp = un('exp', ({ outputs: [y], grads: [g] }: any) => [mul(g, y)])
export const sin = un('sin', ({ inputs: [x], grads: [g] }: any) => [mul(g, cos(x))])
export const cos = un('cos', ({ inputs: [x], grads: [g] }: any) => [mul(mul(g, sin(x)), -1)])
defineOp<{ constants: number[]; code: number[]; outputs: number[]; shape: number[] }>({
  name: 'elementwise', kind: 'kernel', doc: '', attrs: { constants: 'floats', code: 'floats', outputs: 'ints', shape: 'ints' }, strided: 'all',
  infer: (ins, a) => a.outputs.map((_o) => ({ shape: a.shape, dtype: ins[0].dtype })), vjp: 'fused',
})
