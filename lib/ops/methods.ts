import { Tensor } from '../tensor/tensor.js'
import { pad, repeat, split, tile, tril, triu } from './assemble.js'
import { stopGradient } from './control.js'
import {
  abs,
  add,
  cast,
  ceil,
  clip,
  cos,
  div,
  equal,
  erf,
  exp,
  expm1,
  floor,
  floorDiv,
  gelu,
  greater,
  greaterEqual,
  isFinite,
  isNaN,
  less,
  lessEqual,
  log,
  log1p,
  logicalAnd,
  logicalNot,
  logicalOr,
  maximum,
  minimum,
  mul,
  neg,
  notEqual,
  pow,
  reciprocal,
  relu,
  remainder,
  round,
  rsqrt,
  sigmoid,
  sign,
  silu,
  sin,
  softplus,
  sqrt,
  square,
  sub,
  tanh,
} from './elementwise.js'
import { gather, take } from './indexing.js'
import { matmul } from './matmul.js'
import { logSoftmax, softmax } from './norm.js'
import {
  all,
  any,
  argmax,
  argmin,
  cumprod,
  cumsum,
  logSumExp,
  max,
  mean,
  min,
  norm,
  prod,
  std,
  sum,
  variance,
} from './reduce.js'
import { broadcastTo, contiguous, expandDims, flip, reshape, slice, squeeze, swapAxes, transpose } from './shape.js'
import { argsort, sort, topK } from './sort.js'

/**
 * The functions that are methods too: those of one subject, whose name says enough after a dot. What joins several tensors on equal terms
 * (`concat`, `where`, losses, attention) stays a function.
 */
const table = {
  add,
  sub,
  mul,
  div,
  floorDiv,
  remainder,
  neg,
  abs,
  sign,
  pow,
  maximum,
  minimum,
  clip,
  square,
  sqrt,
  rsqrt,
  reciprocal,
  equal,
  notEqual,
  less,
  lessEqual,
  greater,
  greaterEqual,
  logicalAnd,
  logicalOr,
  logicalNot,
  isFinite,
  isNaN,
  exp,
  expm1,
  log,
  log1p,
  sin,
  cos,
  tanh,
  erf,
  sigmoid,
  softplus,
  floor,
  ceil,
  round,
  relu,
  gelu,
  silu,
  softmax,
  logSoftmax,
  cast,
  sum,
  mean,
  max,
  min,
  prod,
  any,
  all,
  argmax,
  argmin,
  logSumExp,
  norm,
  variance,
  std,
  cumsum,
  cumprod,
  reshape,
  transpose,
  swapAxes,
  slice,
  flip,
  broadcastTo,
  expandDims,
  squeeze,
  contiguous,
  pad,
  tile,
  repeat,
  split,
  tril,
  triu,
  matmul,
  take,
  gather,
  sort,
  argsort,
  topK,
  stopGradient,
} as const

type Table = typeof table
type Method<F> = F extends (x: Tensor, ...rest: infer R) => infer Y ? (...rest: R) => Y : never

/** The methods of a tensor: `x.add(y)` is `add(x, y)`, with the same options. */
export type TensorMethods = { [K in keyof Table]: Method<Table[K]> }

declare module '../tensor/tensor.js' {
  interface Tensor extends TensorMethods {}
}

for (const [name, f] of Object.entries(table)) {
  const method = function (this: Tensor, ...rest: readonly unknown[]): unknown {
    return (f as (x: Tensor, ...rest: readonly unknown[]) => unknown)(this, ...rest)
  }
  Object.defineProperty(method, 'name', { value: name })
  Object.defineProperty(Tensor.prototype, name, { value: method, writable: true, configurable: true })
}
