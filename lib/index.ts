// The public face: exports by name, nothing else.
export { SteepestError, type ErrorCode } from './errors.js'
export type { DType, TypedArray } from './tensor/dtype.js'
export type { Shape } from './tensor/shape.js'
export { Tensor } from './tensor/tensor.js'
export * from './ops/index.js'
export { evaluate, readAll } from './graph/evaluate.js'
export { checkpoint, compile, customVjp, grad, hvp, jvp, linearize, valueAndGrad, vjp, vmap } from './transform/index.js'
export * as nn from './nn/index.js'
