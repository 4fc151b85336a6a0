import { describe, expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { linearAttention, type LinearAttentionOptions } from '../../lib/ops/attention.js'
import { cast } from '../../lib/ops/elementwise.js'
import { checkDerivatives, expectClose, random } from './differences.js'

const options: LinearAttentionOptions[] = [
  {},
  { causal: true, chunk: 3 },
  { causal: true, chunk: 2, normalize: false, feature: 'none' },
  { feature: 'relu', eps: 0.1 },
]

describe.each(options)('linearAttention with %j', (o) => {
  test('the numbers of its formula', async () => {
    const [B, T, H, D, E] = [2, 7, 2, 3, 4]
    const inputs = [random([B, T, H, D], 1), random([B, T, H, D], 2), random([B, T, H, E], 3)]
    const [Q, K, V, Y] = await readAll([...inputs, linearAttention(inputs[0], inputs[1], inputs[2], o)])
    const phi = (x: number) =>
      o.feature === 'none' ? x : o.feature === 'relu' ? Math.max(0, x) : x > 0 ? x + 1 : Math.exp(x)
    for (let b = 0; b < B; b++)
      for (let h = 0; h < H; h++)
        for (let t = 0; t < T; t++)
          for (let e = 0; e < E; e++) {
            let [total, weights] = [0, 0]
            for (let s = 0; s < (o.causal ? t + 1 : T); s++) {
              let w = 0
              for (let d = 0; d < D; d++)
                w += phi(Q[((b * T + t) * H + h) * D + d]) * phi(K[((b * T + s) * H + h) * D + d])
              total += w * V[((b * T + s) * H + h) * E + e]
              weights += w
            }
            const wanted = o.normalize === false ? total : total / (weights + (o.eps ?? 1e-6))
            expect(Y[((b * T + t) * H + h) * E + e]).toBeCloseTo(wanted, 11)
          }
  })

  test('derivatives and vmap', async () => {
    await checkDerivatives(
      (q, k, v) => linearAttention(q, k, v, { ...o, eps: 0.5 }),
      [random([2, 4, 1, 2], 1), random([2, 4, 1, 2], 2), random([2, 4, 1, 3], 3)],
    )
    await checkDerivatives(
      (q, k, v) => linearAttention(q, k, v, { ...o, eps: 0.5 }),
      [random([1, 0, 1, 2], 1), random([1, 0, 1, 2], 2), random([1, 0, 1, 1], 3)],
    )
  })
})

test('linearAttention in float32 and bfloat16 against float64', async () => {
  const inputs = [1, 2, 3].map((seed) => cast(random([2, 100, 2, 16], seed), 'bfloat16'))
  const f = (dtype: 'float32' | 'bfloat16' | 'float64') => {
    const [q, k, v] = inputs.map((t) => cast(t, dtype))
    return cast(linearAttention(q, k, v, { causal: true }), 'float64')
  }
  await expectClose(f('float32'), f('float64'), 2e-6)
  await expectClose(f('bfloat16'), f('float64'), 2 ** -8)
})

test('linearAttention says what is wrong', () => {
  const x = random([1, 3, 2, 4], 1)
  expect(() => linearAttention(x, random([1, 2, 2, 4], 1), random([1, 2, 2, 4], 1), { causal: true })).toThrow(
    'S = T where it is causal',
  )
  expect(() => linearAttention(x, x, x, { chunk: 0 })).toThrow('`chunk` must be a whole number')
  expect(() => linearAttention(x, x, x, { features: 'elu' } as never)).toThrow('Did you mean `feature`')
})
