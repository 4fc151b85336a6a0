import { describe, expect, test } from 'vitest'
import {
  avgPool,
  conv1d,
  conv2d,
  grad,
  maxPool,
  nn,
  random,
  readAll,
  reshape,
  sum,
  tensor,
  type Tensor,
  vmap,
} from '../../lib/index.js'
import { checkDerivatives, random as noise } from './differences.js'

interface How {
  stride: number
  padding: number
  dilation: number
  groups: number
}

/** Convolution by its definition. */
function byLoops(
  x: ArrayLike<number>,
  [n, c, h, w]: number[],
  k: ArrayLike<number>,
  [o, cg, kh, kw]: number[],
  { stride, padding, dilation, groups }: How,
): number[] {
  const count = (length: number, size: number) =>
    Math.floor((length + 2 * padding - dilation * (size - 1) - 1) / stride) + 1
  const [oh, ow] = [count(h, kh), count(w, kw)]
  const out: number[] = []
  for (let b = 0; b < n; b++)
    for (let f = 0; f < o; f++)
      for (let i = 0; i < oh; i++)
        for (let j = 0; j < ow; j++) {
          let total = 0
          const first = Math.floor(f / (o / groups)) * cg
          for (let ch = 0; ch < cg; ch++)
            for (let p = 0; p < kh; p++)
              for (let q = 0; q < kw; q++) {
                const y = i * stride - padding + p * dilation
                const z = j * stride - padding + q * dilation
                if (y < 0 || z < 0 || y >= h || z >= w) continue
                total += x[((b * c + first + ch) * h + y) * w + z] * k[((f * cg + ch) * kh + p) * kw + q]
              }
          out.push(total)
        }
  return out
}

const cases: [number[], number[], How][] = [
  [[2, 3, 5, 4], [4, 3, 3, 3], { stride: 1, padding: 1, dilation: 1, groups: 1 }],
  [[1, 4, 7, 6], [6, 2, 3, 2], { stride: 2, padding: 1, dilation: 1, groups: 2 }],
  [[2, 3, 6, 7], [3, 1, 2, 3], { stride: 1, padding: 2, dilation: 2, groups: 3 }],
  [[1, 1, 1, 1], [1, 1, 1, 1], { stride: 3, padding: 0, dilation: 1, groups: 1 }],
  [[0, 2, 4, 4], [3, 2, 2, 2], { stride: 1, padding: 0, dilation: 1, groups: 1 }],
]

describe('conv2d', () => {
  test.each(cases)('%o by %o, %o', async (xs, ws, how) => {
    const [x, w] = [noise(xs, 1), noise(ws, 2)]
    const [got, a, b] = await readAll([conv2d(x, w, how), x, w])
    const wanted = byLoops(a, xs, b, ws, how)
    expect(got.length).toBe(wanted.length)
    wanted.forEach((v, i) => expect(got[i]).toBeCloseTo(v, 12))
    await checkDerivatives((p: Tensor, q: Tensor) => conv2d(p, q, how), [x, w])
  })

  test('conv1d is a conv2d of height one, `same` keeps the length, and the bias is added', async () => {
    const [x, w, bias] = [noise([2, 3, 9], 1), noise([4, 3, 5], 2), noise([4], 3)]
    const one = conv1d(x, w, { padding: 'same', dilation: 2, bias })
    expect(one.shape).toEqual([2, 4, 9])
    const two = conv2d(reshape(x, [2, 3, 1, 9]), reshape(w, [4, 3, 1, 5]), { padding: [0, 4], dilation: 2, bias })
    const [a, b] = await readAll([one, two])
    a.forEach((v, i) => expect(v).toBeCloseTo(Number(b[i]), 13))
  })

  test('per-example gradients of the kernel are those of a loop', async () => {
    const [x, w] = [noise([3, 1, 2, 5, 5], 1), noise([2, 2, 3, 3], 2)]
    const loss = (k: Tensor, image: Tensor) => sum(conv2d(image, k, { padding: 1, stride: 2 }))
    const all = await vmap((image: Tensor) => grad((k: Tensor) => loss(k, image))(w))(x).read()
    const images = await x.read()
    for (let n = 0; n < 3; n++) {
      const image = tensor(Float64Array.from(images.slice(n * 50, (n + 1) * 50)), { shape: [1, 2, 5, 5] })
      const one = await grad((k: Tensor) => loss(k, image))(w).read()
      one.forEach((v, i) => expect(all[n * one.length + i]).toBeCloseTo(Number(v), 12))
    }
  })

  test('float32 and bfloat16 are near float64', async () => {
    for (const [dtype, bound] of [
      ['float32', 1e-5],
      ['bfloat16', 5e-2],
    ] as const) {
      const x = random.normal(random.key(1), [2, 8, 9, 9], { dtype })
      const w = random.normal(random.key(2), [8, 8, 3, 3], { dtype })
      const [got, a, b] = await readAll([conv2d(x, w, { padding: 1 }), x, w])
      const wanted = byLoops(a, x.shape as number[], b, w.shape as number[], {
        stride: 1,
        padding: 1,
        dilation: 1,
        groups: 1,
      })
      const scale = Math.max(...wanted.map(Math.abs))
      wanted.forEach((v, i) => expect(Math.abs(Number(got[i]) - v) / scale).toBeLessThan(bound))
    }
  })

  test('wrong shapes and options are one sentence', () => {
    const [x, w] = [noise([1, 3, 4, 4], 1), noise([2, 3, 3, 3], 2)]
    expect(() => conv2d(x, w, { groups: 2 })).toThrow(/groups dividing/)
    expect(() => conv2d(x, noise([2, 3, 9, 9], 1))).toThrow(/window must fit/)
    expect(() => conv2d(x, w, { stride: 0 })).toThrow(/`stride` must be/)
    expect(() => conv2d(x, w, { paddding: 1 } as never)).toThrow(/paddding.*padding/)
    expect(() => conv2d(x, w, { bias: noise([3], 1) })).toThrow(/bias/)
  })
})

describe('pooling', () => {
  test('takes the largest or the mean of windows', async () => {
    const x = tensor(
      Float64Array.from({ length: 16 }, (_, i) => (i * 7) % 16),
      { shape: [1, 1, 4, 4] },
    )
    expect([...(await maxPool(x, { size: 2 }).read())]).toEqual([12, 14, 15, 13])
    expect([...(await avgPool(x, { size: 2 }).read())]).toEqual([5.5, 7.5, 9.5, 7.5])
    expect([...(await maxPool(x, { size: 3, stride: 1, padding: 1 }).read())].length).toBe(16)
    expect([
      ...(await avgPool(tensor(Float64Array.of(1, 2, 3, 4, 5), { shape: [1, 1, 5] }), {
        size: 3,
        stride: 2,
        padding: 1,
      }).read()),
    ]).toEqual([1, 3, 3])
  })

  test.each([
    [[2, 3, 7], 3, 2, 1],
    [[1, 2, 5, 6], 2, 2, 0],
  ] as [number[], number, number, number][])('derivatives at %o', async (shape, size, stride, padding) => {
    const x = noise(shape, 3)
    await checkDerivatives((t: Tensor) => maxPool(t, { size, stride, padding }), [x])
    await checkDerivatives((t: Tensor) => avgPool(t, { size, stride, padding }), [x])
  })
})

test('layers of convolutions', async () => {
  const layer = new nn.Conv2d(3, 6, 3, { padding: 'same', groups: 3 })
  expect(Object.keys(nn.parameters(layer))).toEqual(['weight', 'bias'])
  expect(layer.forward(random.normal(random.key(0), [2, 3, 8, 8])).shape).toEqual([2, 6, 8, 8])
  expect(new nn.Conv1d(4, 2, 3).forward(random.normal(random.key(0), [1, 4, 10])).shape).toEqual([1, 2, 8])
})
