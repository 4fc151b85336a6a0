import { mul } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import { zeros } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { type Shape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/** Makes the first value of a parameter. */
export type Initializer = (key: Tensor, shape: Shape, dtype?: DType) => Tensor

/** Inputs and outputs of a weight [out, in, …kernel] (PyTorch's meaning). */
function fans(shape: Shape): { fanIn: number; fanOut: number } {
  if (shape.length < 2) return { fanIn: sizeOf(shape), fanOut: sizeOf(shape) }
  const field = sizeOf(shape.slice(2))
  return { fanIn: shape[1] * field, fanOut: shape[0] * field }
}

/** Normal with the given standard deviation (0.02, as GPT-2 has it). */
export const normal =
  (std = 0.02): Initializer =>
  (key, shape, dtype = 'float32') =>
    mul(random.normal(key, shape, { dtype }), std)

/** Uniform in [−bound, bound). */
export const uniform =
  (bound: number): Initializer =>
  (key, shape, dtype = 'float32') =>
    random.uniform(key, shape, { min: -bound, max: bound, dtype })

/** Uniform in ±1/√fanIn: what PyTorch's Linear and Conv start from. */
export const fanInUniform =
  (): Initializer =>
  (key, shape, dtype = 'float32') => {
    const bound = 1 / Math.sqrt(Math.max(1, fans(shape).fanIn))
    return random.uniform(key, shape, { min: -bound, max: bound, dtype })
  }

/** He et al. 2015: normal with variance 2/fanIn, for layers before a ReLU. */
export const kaimingNormal =
  (): Initializer =>
  (key, shape, dtype = 'float32') =>
    mul(random.normal(key, shape, { dtype }), Math.sqrt(2 / Math.max(1, fans(shape).fanIn)))

/** Glorot and Bengio 2010: uniform with variance 2/(fanIn + fanOut). */
export const xavierUniform =
  (): Initializer =>
  (key, shape, dtype = 'float32') => {
    const { fanIn, fanOut } = fans(shape)
    const bound = Math.sqrt(6 / Math.max(1, fanIn + fanOut))
    return random.uniform(key, shape, { min: -bound, max: bound, dtype })
  }

/** Zeros. */
export const zero = (): Initializer => (_key, shape, dtype) => zeros(shape, dtype)
