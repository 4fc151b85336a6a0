import { checkOptions, SteepestError } from '../errors.js'
import { sameShape, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { concat, pad, tril } from './assemble.js'
import { FLOATS, requireDtype } from './define.js'
import { add, cast, div, exp, minimum, relu } from './elementwise.js'
import { matmul } from './matmul.js'
import { cumsum } from './recurrence.js'
import { ones, reshape, slice, swapAxes, transpose } from './shape.js'
import { statisticsOf } from './batching.js'

/** What `linearAttention` may be told. */
export interface LinearAttentionOptions {
  /** A query sees the keys up to its own place. Default: false. */
  causal?: boolean
  /** What queries and keys go through: elu(x) + 1 (default), relu, or nothing where they are features already. */
  feature?: 'elu' | 'relu' | 'none'
  /** Divides by the sum of the weights; true by default. */
  normalize?: boolean
  /** Added to the sum of the weights before the division; 1e-6 by default. */
  eps?: number
  /** Rows that are worked on together in the causal form: memory is T·chunk + (T/chunk)·D·E numbers per head. 64 by default. */
  chunk?: number
}

const WHO = 'linearAttention'
const lastTwo = (x: Tensor): Tensor => swapAxes(x, -1, -2)

function featureOf(x: Tensor, feature: 'elu' | 'relu' | 'none'): Tensor {
  if (feature === 'none') return x
  // elu(x) + 1 is exp(x) below 0 and x + 1 above; a clipped exponent keeps the other branch's gradient finite.
  return feature === 'relu' ? relu(x) : add(exp(minimum(x, 0)), relu(x))
}

/** [B, H, T, ·] cut into chunks, [B, H, N, C, ·], filled up with zeros. */
function chunks(x: Tensor, size: number): Tensor {
  const [batch, heads, time, depth] = x.shape
  const count = Math.ceil(time / size)
  return reshape(
    pad(x, [
      [0, 0],
      [0, 0],
      [0, count * size - time],
      [0, 0],
    ]),
    [batch, heads, count, size, depth],
  )
}

/** Within a chunk by its small matrix of scores, before it by the sum of the products of keys and values. */
function causalSums(q: Tensor, k: Tensor, v: Tensor, size: number): Tensor {
  const [qs, ks, vs] = [q, k, v].map((x) => chunks(x, size))
  const before = cumsum(matmul(lastTwo(ks), vs), { axis: 2, exclusive: true })
  const within = matmul(tril(matmul(qs, lastTwo(ks))), vs)
  const all = add(matmul(qs, before), within)
  const [batch, heads, count, , width] = all.shape
  return slice(reshape(all, [batch, heads, count * size, width]), [null, null, [0, q.shape[2]]])
}

/**
 * Linear attention (Katharopoulos et al., "Transformers are RNNs", 2020): weights φ(q)·φ(k) in place of exp(q·k), so that time and memory
 * grow linearly with the length. q [B, T, H, D], k [B, S, H, D], v [B, S, H, E], to [B, T, H, E]; causal needs S = T.
 */
export function linearAttention(q: Tensor, k: Tensor, v: Tensor, options: LinearAttentionOptions = {}): Tensor {
  checkOptions(WHO, options, ['causal', 'feature', 'normalize', 'eps', 'chunk'])
  const { causal = false, feature = 'elu', normalize = true, eps = 1e-6, chunk = 64 } = options
  for (const t of [q, k, v]) requireDtype(WHO, t, FLOATS)
  const fits = q.rank === 4 && k.rank === 4 && v.rank === 4 && sameShape(k.shape.slice(0, 3), v.shape.slice(0, 3))
  if (
    !fits ||
    q.shape[0] !== k.shape[0] ||
    q.shape[2] !== k.shape[2] ||
    q.shape[3] !== k.shape[3] ||
    (causal && q.shape[1] !== k.shape[1])
  ) {
    throw new SteepestError('SHAPE', {
      who: WHO,
      rule: 'q must be [B, T, H, D], k [B, S, H, D] and v [B, S, H, E], with S = T where it is causal',
      got: [q, k, v].map((t) => showShape(t.shape)).join(', '),
    })
  }
  if (!['elu', 'relu', 'none'].includes(feature))
    throw new SteepestError('OPTION', { who: WHO, rule: '`feature` must be elu, relu or none', got: String(feature) })
  if (!Number.isInteger(chunk) || chunk < 1)
    throw new SteepestError('OPTION', {
      who: WHO,
      rule: '`chunk` must be a whole number of 1 or more',
      got: String(chunk),
    })
  const dtype = statisticsOf(q.dtype)
  const [a, b, c] = [q, k, v].map((t) => transpose(cast(t, dtype), [0, 2, 1, 3]))
  const [query, key] = [featureOf(a, feature), featureOf(b, feature)]
  // One more value that is 1 everywhere: its mixture is the sum of the weights.
  const values = normalize ? concat([c, ones([...c.shape.slice(0, 3), 1], dtype)], { axis: 3 }) : c
  const mixed = causal ? causalSums(query, key, values, chunk) : matmul(query, matmul(lastTwo(key), values))
  const width = v.shape[3]
  const y = normalize
    ? div(slice(mixed, [null, null, null, [0, width]]), add(slice(mixed, [null, null, null, [width, width + 1]]), eps))
    : mixed
  return cast(transpose(y, [0, 2, 1, 3]), q.dtype)
}
