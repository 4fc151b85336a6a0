import { describe, expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { attention, type AttentionOptions } from '../../lib/ops/attention.js'
import { cast, mul } from '../../lib/ops/elementwise.js'
import { sum } from '../../lib/ops/reduce.js'
import { tensor, transpose } from '../../lib/ops/shape.js'
import type { DType } from '../../lib/tensor/dtype.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad } from '../../lib/transform/index.js'
import { checkDerivatives, checkVmap, expectClose, random } from './differences.js'
import { cases as rowCases } from './cases/attention.js'
import { checkCases } from './check.js'

checkCases(rowCases)

/** Sizes: batch, queries, keys, heads, heads of keys, depth. */
type Sizes = readonly [number, number, number, number, number, number]

const operands = ([b, t, s, h, g, d]: Sizes, dtype: DType = 'float64'): [Tensor, Tensor, Tensor] => [
  random([b, t, h, d], 1, dtype),
  random([b, s, g, d], 2, dtype),
  random([b, s, g, d], 3, dtype),
]

const ints = (values: readonly number[], shape: readonly number[], dtype: DType = 'int32'): Tensor =>
  tensor([...values], { dtype, shape })
const count = (n: number, f: (i: number) => number): number[] => Array.from({ length: n }, (_, i) => f(i))

/** Attention by the book, in plain loops. */
async function naive(q: Tensor, k: Tensor, v: Tensor, o: AttentionOptions = {}): Promise<number[]> {
  const [Q, K, V] = await readAll([q, k, v])
  const [B, T, H, D] = q.shape
  const [, S, G] = k.shape
  const E = v.shape[3]
  const bias = o.bias && (await o.bias.read())
  const mask = o.keyMask && (await o.keyMask.read())
  const pair =
    o.segments && (Array.isArray(o.segments) ? (o.segments as Tensor[]) : [o.segments as Tensor, o.segments as Tensor])
  const segments = pair && (await readAll(pair))
  const scale = o.scale ?? 1 / Math.sqrt(D)
  const out: number[] = []
  for (let b = 0; b < B; b++) {
    for (let t = 0; t < T; t++) {
      for (let h = 0; h < H; h++) {
        const g = Math.floor(h / (H / G))
        const scores: number[] = []
        for (let s = 0; s < S; s++) {
          let x = 0
          for (let d = 0; d < D; d++) x += Q[((b * T + t) * H + h) * D + d] * K[((b * S + s) * G + g) * D + d]
          x *= scale
          if (o.softCap) x = o.softCap * Math.tanh(x / o.softCap)
          if (bias) {
            const [bb, bh] = o.bias!.shape
            x += bias[(((bb === 1 ? 0 : b) * bh + (bh === 1 ? 0 : h)) * T + t) * S + s]
          }
          const at = t + S - T
          if (o.causal && s > at) x = -Infinity
          if (o.window && o.window[0] !== null && s < at - o.window[0]) x = -Infinity
          if (o.window && o.window[1] !== null && s > at + o.window[1]) x = -Infinity
          if (mask && !mask[b * S + s]) x = -Infinity
          if (segments && segments[0][b * T + t] !== segments[1][b * S + s]) x = -Infinity
          scores.push(x)
        }
        const top = Math.max(...scores)
        const e = scores.map((x) => (top === -Infinity ? 0 : Math.exp(x - top)))
        const total = e.reduce((a, x) => a + x, 0)
        for (let d = 0; d < E; d++) {
          let y = 0
          for (let s = 0; s < S; s++) y += total === 0 ? 0 : (e[s] / total) * V[((b * S + s) * G + g) * E + d]
          out.push(y)
        }
      }
    }
  }
  return out
}

const options: [string, (s: Sizes) => AttentionOptions][] = [
  ['plain', () => ({})],
  ['causal', () => ({ causal: true })],
  ['scale and soft cap', () => ({ scale: 1.5, softCap: 0.7 })],
  ['window', () => ({ window: [2, 1] })],
  ['causal window', () => ({ causal: true, window: [1, null] })],
  [
    'segments',
    ([b, t, s]) => ({
      segments: [
        ints(
          count(b * t, (i) => Math.floor((i % t) / 2)),
          [b, t],
        ),
        ints(
          count(b * s, (i) => Math.floor((i % s) / 3)),
          [b, s],
        ),
      ],
    }),
  ],
  [
    'key mask',
    ([b, , s]) => ({
      keyMask: ints(
        count(b * s, (i) => Number(i % 3 !== 1)),
        [b, s],
        'uint8',
      ),
      causal: true,
    }),
  ],
  ['bias', ([b, t, s, h]) => ({ bias: random([b, h, t, s], 9) })],
  ['bias of all heads', ([b, t, s]) => ({ bias: random([b, 1, t, s], 9), causal: true, softCap: 2 })],
  ['bias of all examples', ([, t, s, h]) => ({ bias: random([1, h, t, s], 9), window: [3, null] })],
  [
    'all',
    ([b, t, s]) => ({
      bias: random([1, 1, t, s], 9),
      causal: true,
      keyMask: ints(
        count(b * s, (i) => Number(i % 4 !== 0)),
        [b, s],
        'uint8',
      ),
      softCap: 3,
      window: [3, 0],
    }),
  ],
]

const sizes: Sizes[] = [
  [2, 5, 5, 2, 2, 3],
  [1, 4, 6, 4, 2, 5],
  [2, 6, 3, 2, 1, 1],
  [1, 1, 1, 1, 1, 1],
  [1, 0, 3, 1, 1, 2],
  [2, 3, 0, 2, 2, 2],
  [0, 3, 3, 2, 1, 2],
]

describe.each(options)('attention: %s', (_, of) => {
  test.each([...sizes, [2, 130, 130, 2, 1, 17], [1, 70, 600, 2, 2, 8]] as Sizes[])(
    'the numbers of its formula at %j',
    async (...s) => {
      const [q, k, v] = operands(s)
      const y = await attention(q, k, v, of(s)).read()
      const wanted = await naive(q, k, v, of(s))
      expect(y.length).toBe(wanted.length)
      let worst = 0
      wanted.forEach((x, i) => (worst = Math.abs(x - y[i]) <= worst ? worst : Math.abs(x - y[i])))
      expect(worst).toBeLessThan(1e-12)
    },
  )

  test.each(sizes)('derivatives and vmap at %j', async (...s) => {
    const { bias, ...o } = of(s)
    if (bias) await checkDerivatives((q, k, v, b) => attention(q, k, v, { ...o, bias: b }), [...operands(s), bias])
    else await checkDerivatives((q, k, v) => attention(q, k, v, o), operands(s))
  })
})

describe('attention', () => {
  test('gradients over many blocks and chunks are those of its definition', async () => {
    const s: Sizes = [1, 200, 700, 4, 2, 12]
    const [q, k, v] = operands(s)
    const bias = random([1, 1, 200, 700], 7)
    const o: AttentionOptions = {
      causal: true,
      softCap: 2,
      keyMask: ints(
        count(700, (i) => Number(i % 7 !== 3)),
        [1, 700],
        'uint8',
      ),
    }
    const loss = (...x: Tensor[]) =>
      sum(mul(attention(x[0], x[1], x[2], { ...o, bias: x[3] }), random([1, 200, 4, 12], 8)))
    const gradients = grad(loss, { argnums: [0, 1, 2, 3] })(q, k, v, bias) as unknown as Tensor[]
    const inputs = [q, k, v, bias]
    const data = await readAll(inputs)
    const along = inputs.map((t, i) => random(t.shape, 20 + i))
    for (let i = 0; i < 4; i++) {
      const [d, g] = await readAll([along[i], gradients[i]])
      const at = (h: number) =>
        loss(
          ...inputs.map((t, j) =>
            j === i
              ? tensor(
                  Float64Array.from(data[i], (x: number, n: number) => x + h * d[n]),
                  { shape: t.shape },
                )
              : t,
          ),
        )
      const [up, down] = await readAll([at(1e-5), at(-1e-5)])
      const wanted = (up[0] - down[0]) / 2e-5
      const got = Array.from(g as Float64Array).reduce((a, x, n) => a + x * d[n], 0)
      expect(Math.abs(got - wanted)).toBeLessThan(1e-6 * Math.max(1, Math.abs(wanted)))
    }
  })

  test.each([
    [3, 5],
    [5, 2],
    [4, 1],
  ])('keys of depth %d and values of depth %d: numbers, derivatives and vmap', async (depth, values) => {
    const [q, k] = operands([2, 4, 5, 4, 2, depth])
    const v = random([2, 5, 2, values], 3)
    const y = attention(q, k, v, { causal: true })
    await expectClose(
      y,
      tensor(await naive(q, k, v, { causal: true }), { dtype: 'float64', shape: [2, 4, 4, values] }),
      1e-12,
    )
    await checkDerivatives((...x) => attention(x[0], x[1], x[2], { causal: true }), [q, k, v])
  })

  test('a query that sees no key gives zeros and has no gradient', async () => {
    const [q, k, v] = operands([1, 2, 2, 1, 1, 3])
    const keyMask = ints([0, 0], [1, 2], 'uint8')
    const loss = (...x: Tensor[]) => sum(attention(x[0], x[1], x[2], { keyMask }))
    const all = await readAll([
      attention(q, k, v, { keyMask }),
      ...(grad(loss, { argnums: [0, 1, 2] })(q, k, v) as unknown as Tensor[]),
    ])
    for (const t of all) expect([...t].every((x) => x === 0)).toBe(true)
    const hidden = await readAll([
      attention(q, k, v, { bias: tensor(new Float64Array(4).fill(-Infinity), { shape: [1, 1, 2, 2] }) }),
    ])
    expect([...hidden[0]].every((x) => x === 0)).toBe(true)
  })

  test('reads heads where they lie', async () => {
    const heads = [1, 2, 3].map((seed) => random([2, 2, 5, 3], seed))
    await checkDerivatives(
      (q, k, v) => attention(transpose(q, [0, 2, 1, 3]), transpose(k, [0, 2, 1, 3]), transpose(v, [0, 2, 1, 3])),
      heads,
    )
  })

  const dropout = { dropout: 0.4, key: ints([3, 5], [2]), site: 2 }

  test('dropout: derivatives, with one mask in both passes', async () => {
    await checkDerivatives(
      (q, k, v, bias) => attention(q, k, v, { ...dropout, bias, causal: true, softCap: 2 }),
      [...operands([2, 5, 6, 2, 1, 3]), random([1, 2, 5, 6], 5)],
    )
  })

  test('dropout keeps the mean, drops the share that it says, and depends on key, site and ids only', async () => {
    const eye = tensor(
      Float64Array.from({ length: 2 * 64 * 2 * 64 }, (_, i) => Number(Math.floor(i / 128) % 64 === i % 64)),
      { shape: [2, 64, 2, 64] },
    )
    const zero = tensor(new Float64Array(eye.size), { shape: eye.shape })
    const weights = (o: AttentionOptions) => attention(zero, zero, eye, o).read()
    const once = await weights(dropout)
    const kept = [...once].filter((x) => x !== 0)
    expect(Math.abs(kept.length / once.length - 0.6)).toBeLessThan(0.02)
    kept.forEach((x) => expect(x).toBeCloseTo(1 / 64 / 0.6, 12))
    expect(await weights(dropout)).toEqual(once)
    expect(await weights({ ...dropout, site: 3 })).not.toEqual(once)
    expect(await weights({ ...dropout, key: ints([3, 6], [2]) })).not.toEqual(once)
    const ids = await weights({ ...dropout, ids: ints([8, 9], [2]) })
    const swapped = await weights({ ...dropout, ids: ints([9, 8], [2]) })
    const half = ids.length / 2
    expect([...ids.slice(0, half), ...ids.slice(half)]).toEqual([...swapped.slice(half), ...swapped.slice(0, half)])
  })

  test('dropout under vmap draws as the loop does', async () => {
    await checkVmap((q, k, v) => attention(q, k, v, dropout), operands([2, 4, 4, 2, 1, 3]))
  })

  test.each([
    ['float32', 4e-6],
    ['bfloat16', 2 ** -7],
  ] as [DType, number][])('%s against float64', async (dtype, bound) => {
    for (const s of [
      [2, 100, 100, 4, 2, 40],
      [1, 33, 600, 2, 2, 64],
    ] as Sizes[]) {
      const inputs = operands(s).map((t) => cast(t, dtype))
      const bias = cast(random([1, s[3], s[1], s[2]], 4), dtype)
      const g = cast(random([s[0], s[1], s[3], s[5]], 5), dtype)
      const wide = (t: Tensor) => cast(t, 'float64')
      const o: AttentionOptions = { causal: true, softCap: 5, scale: 0.5 }
      const f = (x: readonly Tensor[]) => attention(x[0], x[1], x[2], { ...o, bias: x[3] })
      const narrow = [...inputs, bias]
      await expectClose(wide(f(narrow)), f(narrow.map(wide)), bound)
      const gradients = (x: readonly Tensor[]) =>
        grad((...t: Tensor[]) => sum(mul(wide(f(t)), wide(g))), { argnums: [0, 1, 2, 3] })(...x) as unknown as Tensor[]
      const [got, wanted] = [gradients(narrow), gradients(narrow.map(wide))]
      for (let i = 0; i < 4; i++) await expectClose(wide(got[i]), wanted[i], bound)
    }
  })

  test('says what is wrong', () => {
    const [q, k, v] = operands([1, 2, 3, 2, 2, 4])
    expect(() => attention(q, k, random([1, 4, 2, 4], 1))).toThrow('q must be [B, T, H, D]')
    expect(() => attention(q, cast(k, 'float32'), v)).toThrow('one dtype')
    expect(() => attention(q, k, v, { dropout: 0.1 })).toThrow('needs a `key`')
    expect(() => attention(q, k, v, { dropout: 1, key: ints([1, 2], [2]) })).toThrow('[0, 1)')
    expect(() => attention(q, k, v, { window: [-1, 0] })).toThrow('`window` must be whole numbers')
    expect(() => attention(q, k, v, { keyMask: ints([1, 1], [1, 2], 'uint8') })).toThrow(
      '`keyMask` must have the shape [1, 3]',
    )
    expect(() => attention(q, k, v, { segments: ints([0, 0], [1, 2]) })).toThrow(
      '`segments` must have the shape [1, 3]',
    )
    expect(() => attention(q, k, v, { casual: true } as never)).toThrow('Did you mean `causal`')
  })
})
