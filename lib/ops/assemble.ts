import type { Tensor } from '../tensor/tensor.js'
export const pad = (x: Tensor, _p: number[][]): Tensor => x
