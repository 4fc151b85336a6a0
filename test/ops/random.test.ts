import { describe, expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { log, mul } from '../../lib/ops/elementwise.js'
import { dropout, random as R } from '../../lib/ops/random.js'
import { sum } from '../../lib/ops/reduce.js'
import { ones, reshape, slice, tensor } from '../../lib/ops/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { checkpoint, grad, vmap } from '../../lib/transform/index.js'
import { checkDerivatives, expectClose, random } from './differences.js'
import { expectSameBits } from './threads.js'
import { cases as rowCases } from './cases/random.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const N = 1 << 18
const key = R.key(2026)

/** Standard deviations between the mean of n draws and the true one, and the same of their variance. */
function scores(
  x: ArrayLike<number>,
  mean: number,
  variance: number,
  fourth: number,
): { mean: number; variance: number } {
  const n = x.length
  let s1 = 0
  let s2 = 0
  for (let i = 0; i < n; i++) {
    const d = x[i] - mean
    s1 += d
    s2 += d * d
  }
  // Var of the mean of squares about the true mean: (μ₄ − σ⁴)/n.
  return {
    mean: s1 / n / Math.sqrt(variance / n),
    variance: (s2 / n - variance) / Math.sqrt((fourth - variance ** 2) / n),
  }
}

/** χ² of counts against expected ones, as a number of standard deviations from its mean. */
function chiSquare(counts: ArrayLike<number>, expected: ArrayLike<number>): number {
  let chi = 0
  for (let i = 0; i < counts.length; i++) chi += (counts[i] - expected[i]) ** 2 / expected[i]
  const freedom = counts.length - 1
  return (chi - freedom) / Math.sqrt(2 * freedom)
}

function correlation(a: ArrayLike<number>, b: ArrayLike<number>, mean: number, variance: number): number {
  let s = 0
  for (let i = 0; i < a.length; i++) s += (a[i] - mean) * (b[i] - mean)
  return s / variance / Math.sqrt(a.length)
}

/** Φ(x) by its series, exact to 1e-12 for |x| < 6. */
function normalBelow(x: number): number {
  let term = x
  let total = x
  for (let k = 1; k < 200; k++) {
    term *= (-x * x) / (2 * k)
    total += term / (2 * k + 1)
  }
  return 0.5 + total / Math.sqrt(2 * Math.PI)
}

const near = (z: number) => expect(Math.abs(z)).toBeLessThan(4)
const histogram = (x: ArrayLike<number>, bins: number, place: (v: number) => number): Float64Array => {
  const counts = new Float64Array(bins)
  for (let i = 0; i < x.length; i++) counts[Math.min(bins - 1, Math.max(0, Math.floor(place(x[i]) * bins)))]++
  return counts
}
const flatBins = (bins: number) => new Float64Array(bins).fill(N / bins)

describe('distributions', () => {
  test.each(['float32', 'float64'] as const)('uniform, normal and exponential in %s', async (dtype) => {
    const [u, z, e, g] = await readAll([
      R.uniform(key, [N], { dtype, min: -2, max: 3 }),
      R.normal(key, [N], { dtype, site: 1 }),
      R.exponential(key, [N], { dtype, site: 2 }),
      R.gumbel(key, [N], { dtype, site: 3 }),
    ])
    const variance = 25 / 12
    const of = { u: scores(u, 0.5, variance, 625 / 80), z: scores(z, 0, 1, 3), e: scores(e, 1, 1, 9) }
    for (const s of Object.values(of)) {
      near(s.mean)
      near(s.variance)
    }
    near(scores(g, 0.5772156649015329, Math.PI ** 2 / 6, 14.6 * 1).mean)
    expect(u.every((v: number) => v >= -2 && v < 3)).toBe(true)
    near(
      chiSquare(
        histogram(u, 256, (v) => (v + 2) / 5),
        flatBins(256),
      ),
    )
    near(chiSquare(histogram(z, 256, normalBelow), flatBins(256)))
    near(
      chiSquare(
        histogram(e, 256, (v) => 1 - Math.exp(-v)),
        flatBins(256),
      ),
    )
    near(
      chiSquare(
        histogram(g, 256, (v) => Math.exp(-Math.exp(-v))),
        flatBins(256),
      ),
    )
    // Neighbours, and the two numbers that one Box–Muller pair gives (16 apart).
    for (const gap of [1, 16, 32, 64]) near(correlation(z.subarray(0, N - gap), z.subarray(gap), 0, 1))
    const squares = Float64Array.from(z, (v) => v * v)
    for (const gap of [1, 16]) near(correlation(squares.subarray(0, N - gap), squares.subarray(gap), 1, 2))
    // Tails: beyond 4 lie 6.3e-5 of all.
    const beyond = z.reduce((n: number, v: number) => n + Number(Math.abs(v) > 4), 0)
    near((beyond - N * 6.334e-5) / Math.sqrt(N * 6.334e-5))
  })

  test('bfloat16 is the float32 draw rounded, and stays in its range', async () => {
    const [h, f] = await readAll([R.normal(key, [1000], { dtype: 'bfloat16' }), R.normal(key, [1000])])
    for (let i = 0; i < 1000; i++) expect(Math.abs(h[i] - f[i])).toBeLessThanOrEqual(Math.abs(f[i]) * 2 ** -8)
    const u = await R.uniform(key, [N], { dtype: 'bfloat16' }).read()
    expect(u.every((v: number) => v >= 0 && v < 1)).toBe(true)
  })

  test('bits, integers and coins', async () => {
    const [b, i, wide, c, p] = await readAll([
      R.bits(key, [N]),
      R.integers(key, [N], -3, 97),
      R.integers(key, [N], -(2 ** 31), 2 ** 31),
      R.bernoulli(key, 0.3, [N]),
      R.bernoulli(key, tensor([0, 0.1, 0.9, 1]), [N / 4, 4]),
    ])
    for (let bit = 0; bit < 32; bit++) {
      const ones = b.reduce((n: number, v: number) => n + ((v >>> bit) & 1), 0)
      near((ones - N / 2) / Math.sqrt(N / 4))
    }
    near(
      chiSquare(
        histogram(i, 100, (v) => (v + 3.5) / 100),
        flatBins(100),
      ),
    )
    expect([Math.min(...i.slice(0, 50000)), Math.max(...i.slice(0, 50000))]).toEqual([-3, 96])
    near(
      chiSquare(
        histogram(wide, 64, (v) => (v + 2 ** 31) / 2 ** 32),
        flatBins(64),
      ),
    )
    near((c.reduce((n: number, v: number) => n + v, 0) - 0.3 * N) / Math.sqrt(N * 0.21))
    const columns = [0, 0, 0, 0]
    p.forEach((v: number, at: number) => {
      columns[at % 4] += v
    })
    expect([columns[0], columns[3]]).toEqual([0, N / 4])
    near((columns[1] - 0.1 * (N / 4)) / Math.sqrt((N / 4) * 0.09))
    near((columns[2] - 0.9 * (N / 4)) / Math.sqrt((N / 4) * 0.09))
  })

  test('categorical draws softmax(logits), along any axis, never a −∞', async () => {
    const probabilities = [0.5, 0, 0.2, 0.25, 0.05]
    const logits = log(tensor(probabilities))
    const rows = mul(ones([N, 5]), logits)
    const [last, first] = await readAll([
      R.categorical(key, rows),
      R.categorical(key, mul(ones([5, 1000]), reshape(logits, [5, 1])), { axis: 0 }),
    ])
    const counts = new Float64Array(5)
    last.forEach((v: number) => counts[v]++)
    expect(counts[1]).toBe(0)
    const kept = [0, 2, 3, 4]
    near(
      chiSquare(
        kept.map((i) => counts[i]),
        kept.map((i) => probabilities[i] * N),
      ),
    )
    expect(first.length).toBe(1000)
    expect(first.includes(1)).toBe(false)
    await expect(R.categorical(key, tensor([Number.NaN, Number.NaN])).read()).rejects.toThrow(
      '[categorical] a number is not finite',
    )
  })

  test('permutations are permutations, all equally likely', async () => {
    const p = await R.permutation(key, 1000).read()
    expect([...p].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i))
    const counts = new Map<string, number>()
    const all = await readAll(Array.from({ length: 2400 }, (_, i) => R.permutation(R.foldIn(key, i), 4)))
    for (const one of all) counts.set(one.join(''), (counts.get(one.join('')) ?? 0) + 1)
    expect(counts.size).toBe(24)
    near(chiSquare([...counts.values()], new Array<number>(24).fill(100)))
    const x = tensor([
      [1, 2],
      [3, 4],
      [5, 6],
    ])
    const rows = await R.shuffle(key, x).read()
    expect([...rows].sort()).toEqual([1, 2, 3, 4, 5, 6])
    expect(rows[1]).toBe(rows[0] + 1)
  })
})

describe('keys', () => {
  test('split, fold and sites give independent numbers', async () => {
    const keys = R.split(key, 3)
    const at = (i: number) => reshape(slice(keys, [[i, i + 1]]), [2])
    const draws = await readAll([
      R.uniform(key, [N]),
      ...[0, 1, 2].map((i) => R.uniform(at(i), [N])),
      R.uniform(R.foldIn(key, 0), [N]),
      R.uniform(R.foldIn(key, 1), [N]),
      R.uniform(R.key(2027), [N]),
      R.uniform(key, [N], { site: 1 }),
    ])
    for (let a = 0; a < draws.length; a++)
      for (let b = 0; b < a; b++) near(correlation(draws[a], draws[b], 0.5, 1 / 12))
  })

  test('the same key gives the same numbers; a number and a tensor fold alike', async () => {
    const [a, b] = await readAll([R.normal(R.key(5), [100]), R.normal(R.key(5), [100])])
    expect(a).toEqual(b)
    const [c, d, e] = await readAll([R.foldIn(key, 7), R.foldIn(key, tensor(7, { dtype: 'int32' })), R.foldIn(key, 8)])
    expect(c).toEqual(d)
    expect(c).not.toEqual(e)
    const [low, high] = await readAll([R.key(3), R.key(3 + 2 ** 40)])
    expect([...low, ...high]).toEqual([3, 0, 3, 256])
  })

  test('stacks of keys draw as each of them', async () => {
    const keys = R.split(key, 4)
    const all = await R.normal(keys, [3, 5]).read()
    for (let i = 0; i < 4; i++) {
      const one = await R.normal(reshape(slice(keys, [[i, i + 1]]), [2]), [3, 5]).read()
      expect(all.slice(15 * i, 15 * i + 15)).toEqual(one)
    }
    const mapped = await vmap((k: Tensor) => R.normal(R.foldIn(k, 3), [7]))(keys).read()
    const last = await R.normal(R.foldIn(reshape(slice(keys, [[3, 4]]), [2]), 3), [7]).read()
    expect(mapped.slice(21)).toEqual(last)
  })

  test('an example draws the same numbers in any batch', async () => {
    const ids = tensor([41, 7, 1000], { dtype: 'int32' })
    const [batch, alone] = await readAll([
      R.normal(key, [3, 9], { ids }),
      R.normal(key, [1, 9], { ids: tensor([7], { dtype: 'int32' }) }),
    ])
    expect(batch.slice(9, 18)).toEqual(alone)
    const x = random([3, 9], 1)
    const [whole, single] = await readAll([
      dropout(x, { p: 0.5, key, ids }),
      dropout(slice(x, [[1, 2]]), { p: 0.5, key, ids: tensor([7], { dtype: 'int32' }) }),
    ])
    expect(whole.slice(9, 18)).toEqual(single)
  })

  test('bits do not depend on the number of threads', async () => {
    const logits = random([50, 301], 1, 'float32')
    await expectSameBits(() => [
      R.normal(key, [3, 12345]),
      R.uniform(key, [99999], { dtype: 'float64' }),
      R.split(key, 5000),
      R.categorical(key, logits),
      dropout(random([77, 1001], 2, 'float32'), { p: 0.1, key }),
      R.permutation(key, 100000),
    ])
  })

  test('refuses what is no key, seed, range or option', () => {
    expect(() => R.key(-1)).toThrow('[random.key] a seed must be a whole number in [0, 2^53); got -1')
    expect(() => R.normal(tensor([1, 2]), [3])).toThrow(
      '[random] a key must be int32 [2]; got float32[2]. Make one: random.key(0)',
    )
    expect(() => R.uniform(key, [3], { max: -1 })).toThrow('`max` must not be below `min`')
    expect(() => R.uniform(key, [3], { maximum: 2 } as object)).toThrow('unknown option `maximum`')
    expect(() => R.normal(key, [3], { ids: tensor([1, 2], { dtype: 'int32' }) })).toThrow(
      '`ids` must be int32, one per example',
    )
    expect(() => R.normal(key, [3], { dtype: 'int32' })).toThrow('dtype must be')
    expect(() => dropout(ones([2]), { p: 1.5, key })).toThrow('[dropout] `p` must be in [0, 1]; got 1.5')
    expect(() =>
      grad((x: Tensor) => sum(R.gumbel(key, [2], {}) && mul(x, R.categorical(key, x))))(ones([2])),
    ).not.toThrow()
  })
})

describe('dropout', () => {
  test('zeros a share p and keeps the mean', async () => {
    for (const p of [0.1, 0.5, 0.9]) {
      const y = await dropout(ones([N]), { p, key }).read()
      const kept = y.reduce((n: number, v: number) => n + Number(v !== 0), 0)
      near((kept - N * (1 - p)) / Math.sqrt(N * p * (1 - p)))
      expect(new Set(y)).toEqual(new Set([0, Math.fround(1 / (1 - p))]))
    }
    expect(await dropout(ones([3]), { p: 1, key }).read()).toEqual(new Float32Array(3))
    const x = ones([3])
    expect(dropout(x, { p: 0, key })).toBe(x)
  })

  test.each([[[]], [[0]], [[1]], [[3, 5]], [[2, 0, 3]], [[130]]])(
    'derivatives and vmap at %j: the same mask again',
    async (shape) => {
      await checkDerivatives((x) => dropout(x, { p: 0.4, key }), [random(shape, 1)])
      if (shape.length > 0) {
        const ids = tensor(Int32Array.from({ length: shape[0] }, (_, i) => 3 * i))
        await checkDerivatives((x) => dropout(x, { p: 0.4, key, ids, site: 2 }), [random(shape, 1)])
      }
    },
  )

  test('recomputation draws the same mask', async () => {
    const x = random([40], 1)
    const f = (t: Tensor) => dropout(mul(t, t), { p: 0.5, key })
    await expectClose(grad((t: Tensor) => sum(checkpoint(f)(t)))(x), grad((t: Tensor) => sum(f(t)))(x), 0)
  })
})
