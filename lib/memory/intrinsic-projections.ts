import { concat } from '../ops/assemble.js'
import { cast, mul, sub } from '../ops/elementwise.js'
import { hadamard } from '../ops/hadamard.js'
import { scatterAdd, take } from '../ops/indexing.js'
import { matmul } from '../ops/matmul.js'
import { random } from '../ops/random.js'
import { broadcastTo, reshape, slice, zeros } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/** What a projection is for. */
export interface ProjectionPart {
  /** Numbers of this tensor: how many come out. */
  readonly size: number
  /** Numbers of all tensors that are moved (D): entries have the variance 1/D, so that no length changes in the mean. */
  readonly total: number
  /** A key of this tensor alone, int32 [2]; what is drawn from it makes P. */
  readonly key: Tensor
  /** A key that all tensors have in common. */
  readonly shared: Tensor
}

/** Rows of a projection P, applied: from coordinates [d] to the numbers of one tensor [size]. It must be linear. */
export type Project = (coordinates: Tensor, part: ProjectionPart) => Tensor

const floatOf = (t: Tensor): 'float32' | 'float64' => (t.dtype === 'float64' ? 'float64' : 'float32')

/** −1 or 1, as likely. */
const signs = (key: Tensor, shape: readonly number[], like: Tensor, site = 0): Tensor =>
  sub(mul(cast(random.bernoulli(key, 0.5, shape, { site }), floatOf(like)), 2), 1)

/** Entries N(0, 1/D), drawn when they are needed. */
const dense: Project = (d, { size, total, key }) => {
  const p = random.normal(key, [size, d.size], { dtype: floatOf(d) })
  return mul(reshape(matmul(p, reshape(d, [d.size, 1])), [size]), 1 / Math.sqrt(total))
}

/**
 * ± one number at places that are drawn with replacement, 1/√D of all: Li et al. 2018, section S7, after Li, Hastie, Church 2006. At least one
 * a tensor.
 */
const sparse: Project = (d, { size, total, key }) => {
  const count = Math.max(1, Math.round((d.size * size) / Math.sqrt(total)))
  const value = Math.sqrt((size * d.size) / (total * count))
  const rows = random.integers(key, [count], 0, size, { site: 0 })
  const columns = random.integers(key, [count], 0, d.size, { site: 1 })
  const entries = mul(signs(key, [count], d, 2), value)
  return scatterAdd(zeros([size], d.dtype), rows, mul(take(d, columns), entries), { axis: 0 })
}

/**
 * Blocks H G Π H B (Le, Sarlos, Smola 2013): B signs, H the Walsh–Hadamard transform, Π one order for all blocks, G normal. Given B and Π, a
 * column of a block is independent N(0, 1/D) numbers. O(D log d), and nothing is kept.
 */
const fastfood: Project = (d, { size, total, key, shared }) => {
  const n = 2 ** Math.ceil(Math.log2(d.size))
  const blocks = Math.ceil(size / n)
  const padded = n === d.size ? d : concat([d, zeros([n - d.size], d.dtype)], { axis: 0 })
  const mixed = hadamard(mul(broadcastTo(padded, [blocks, n]), signs(key, [blocks, n], d)))
  const turned = take(mixed, random.permutation(shared, n), { axis: 1 })
  const gauss = random.normal(key, [blocks, n], { dtype: floatOf(d), site: 1 })
  const out = hadamard(mul(turned, gauss))
  return mul(slice(reshape(out, [blocks * n]), [[0, size]]), Math.sqrt(n / total))
}

/** Projections by name. */
export const PROJECTIONS = { fastfood, dense, sparse } as const
