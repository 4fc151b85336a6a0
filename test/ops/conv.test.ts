import { describe, expect, test } from 'vitest'
import {
  cast,
  conv1d,
  conv2d,
  convTranspose2d,
  full,
  grad,
  nn,
  random,
  readAll,
  reshape,
  sum,
  tensor,
  type Tensor,
  vjp,
  vmap,
} from '../../lib/index.js'
import { cases as tableCases } from './cases/conv.js'
import { checkCases } from './check.js'
import { type Attrs, opNamed } from '../../lib/ops/define.js'
import { makeNode } from '../../lib/tensor/tensor.js'
import { checkDerivatives, expectClose, random as noise } from './differences.js'

checkCases(tableCases)

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

describe('rows', () => {
  test.each([
    { stride: [1, 1], padding: [0, 0, 0, 0], dilation: [1, 1], groups: 1 },
    { stride: [2, 3], padding: [1, 2, 0, 1], dilation: [1, 2], groups: 2 },
    { stride: [3, 1], padding: [4, 0, 2, 5], dilation: [2, 1], groups: 2 },
  ])('are what their definitions say: %o', async (geometry) => {
    const [x, w, bias] = [noise([2, 4, 7, 8], 1), noise([6, 4 / geometry.groups, 2, 3], 2), noise([6], 3)]
    const both = (name: string, inputs: Tensor[], attrs: Attrs): [Tensor, Tensor][] => {
      const op = opNamed(name)
      const defined = op.define!(inputs, attrs)
      return makeNode(op, inputs, attrs).map((t, i) => [t, defined[i]])
    }
    const forward = both('conv', [x, w, bias], { ...geometry, bias: true })
    const dy = noise(forward[0][0].shape as number[], 4)
    const pairs = [
      ...forward,
      ...both('convInputBackward', [dy, w], { ...geometry, size: [7, 8] }),
      ...both('convWeightBackward', [x, dy], { ...geometry, kernel: [2, 3], bias: true }),
    ]
    expect(pairs.length).toBe(4)
    for (const [kernel, definition] of pairs) await expectClose(kernel, definition, 1e-13)
  })

  // Over several tiles, bands and pieces, and in float32 by both ways: of oneDNN where channels are many, and our own.
  test.each([
    [[2, 9, 1, 3001], [20, 9, 1, 5], { stride: [1, 2], padding: [0, 0, 2, 2], dilation: [1, 2], groups: 1 }],
    [[1, 2, 1, 2999], [4, 1, 1, 3], { stride: [1, 1], padding: [0, 0, 1, 0], dilation: [1, 1], groups: 2 }],
    [[9, 40, 15, 17], [50, 40, 3, 3], { stride: [1, 1], padding: [1, 1, 1, 1], dilation: [1, 1], groups: 1 }],
    [[3, 66, 14, 13], [132, 33, 3, 2], { stride: [2, 1], padding: [1, 0, 0, 1], dilation: [1, 1], groups: 2 }],
    [[17, 5, 40, 70], [3, 5, 3, 3], { stride: [1, 3], padding: [2, 2, 0, 2], dilation: [2, 1], groups: 1 }],
    [[5, 130, 9, 9], [70, 130, 1, 1], { stride: [2, 2], padding: [0, 0, 0, 0], dilation: [1, 1], groups: 1 }],
    [[40, 1, 28, 28], [6, 1, 5, 5], { stride: [1, 1], padding: [0, 0, 0, 0], dilation: [1, 1], groups: 1 }],
  ] as const)('of many tiles are what their definitions say: %o, %o, %o', async (xs, ws, how) => {
    for (const [dtype, bound] of [
      ['float64', 1e-13],
      ['float32', 3e-6],
    ] as const) {
      const geometry = JSON.parse(JSON.stringify(how)) as { stride: number[] }
      const wide = [noise(xs, 1), noise(ws, 2), noise([ws[0]], 3)].map((t) => cast(cast(t, 'bfloat16'), 'float64'))
      const both = (name: string, inputs: Tensor[], attrs: Attrs): [Tensor, Tensor][] => {
        const op = opNamed(name)
        const narrow = makeNode(
          op,
          inputs.map((t) => cast(t, dtype)),
          attrs,
        )
        return op.define!(inputs, attrs).map((t, i) => [cast(narrow[i], 'float64'), t])
      }
      const forward = both('conv', wide, { ...geometry, bias: true })
      const dy = cast(cast(noise(forward[0][1].shape as number[], 4), 'bfloat16'), 'float64')
      const pairs = [
        ...forward,
        ...both('convInputBackward', [dy, wide[1]], { ...geometry, size: xs.slice(2) }),
        ...both('convWeightBackward', [wide[0], dy], { ...geometry, kernel: ws.slice(2), bias: true }),
      ]
      expect(pairs.length).toBe(4)
      for (const [kernel, definition] of pairs) await expectClose(kernel, definition, bound)
    }
  })

  test('what is not finite stays where windows see it', async () => {
    for (const dtype of ['float32', 'bfloat16', 'float64'] as const) {
      const values = new Float64Array(2 * 36).fill(1)
      values[7] = Number.NaN
      values[36 + 21] = Number.POSITIVE_INFINITY
      const x = tensor(values, { shape: [1, 2, 6, 6], dtype })
      const w = full([3, 2, 3, 3], 1, dtype)
      const dy = full([1, 3, 6, 6], 1, dtype)
      const [y, dx, dw] = await readAll([
        conv2d(x, w, { padding: 1 }),
        vjp((t: Tensor) => conv2d(t, w, { padding: 1 }), x)[1](dy)[0],
        vjp((t: Tensor) => conv2d(x, t, { padding: 1 }), w)[1](dy)[0],
      ])
      const near = (i: number, at: number) =>
        Math.abs(Math.floor(i / 6) - Math.floor(at / 6)) <= 1 && Math.abs((i % 6) - (at % 6)) <= 1
      for (let i = 0; i < 108; i++) {
        const place = i % 36
        const wanted = near(place, 7) ? Number.NaN : near(place, 21) ? Number.POSITIVE_INFINITY : undefined
        if (wanted === undefined) expect(Number.isFinite(y[i])).toBe(true)
        else expect(y[i]).toBe(wanted)
      }
      expect(dx.every((v) => Number.isFinite(v))).toBe(true)
      // Every place of the kernel stood over both; the sums of the second channel are infinite.
      dw.forEach((v, i) => expect(v).toBe(Math.floor(i / 9) % 2 === 0 ? Number.NaN : Number.POSITIVE_INFINITY))
    }
  })

  test('a number that a place of the kernel never meets does not reach its gradient', async () => {
    const values = new Float64Array(20).fill(1)
    values[4] = Number.POSITIVE_INFINITY
    for (const dtype of ['float32', 'bfloat16', 'float64'] as const) {
      const x = tensor(values, { shape: [1, 1, 4, 5], dtype })
      const dw = await vjp((t: Tensor) => conv2d(x, t, { padding: 1 }), full([20, 1, 3, 3], 1, dtype))[1](
        full([1, 20, 4, 5], 1, dtype),
      )[0].read()
      // The upper right corner is under the places that reach beyond neither the upper nor the right edge.
      dw.forEach((v, i) => expect(Number.isFinite(v)).toBe(Math.floor((i % 9) / 3) === 2 || i % 3 === 0))
    }
  })
})

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
    expect(() => conv2d(x, w, { padding: [1, [0, 1, 2]] as never })).toThrow(/`padding` must be/)
    const [narrow, kernel] = [noise([1, 3, 4, 4], 1, 'bfloat16'), noise([2, 3, 3, 3], 2, 'bfloat16')]
    expect(() => conv2d(narrow, kernel, { bias: noise([2], 1, 'float32') })).toThrow(
      /`bias` must have the dtype of x and the weight, bfloat16; got float32\[2\]/,
    )
    expect(() => conv2d(narrow, w)).toThrow(/x and the weight must have one dtype/)
    expect(() => convTranspose2d(x, noise([3, 2, 3, 3], 1), { outputPadding: 1 })).toThrow(/smaller than the stride/)
    expect(() => convTranspose2d(noise([1, 3, 1, 1], 1), noise([3, 2, 1, 1], 1), { padding: 1 })).toThrow(
      /at least one place/,
    )
  })
})

test('layers of convolutions', async () => {
  const layer = new nn.Conv2d(3, 6, 3, { padding: 'same', groups: 3 })
  expect(Object.keys(nn.parameters(layer))).toEqual(['weight', 'bias'])
  expect(layer.forward(random.normal(random.key(0), [2, 3, 8, 8])).shape).toEqual([2, 6, 8, 8])
  expect(new nn.Conv1d(4, 2, 3).forward(random.normal(random.key(0), [1, 4, 10])).shape).toEqual([1, 2, 8])
  const up = new nn.ConvTranspose2d(4, 6, 3, { stride: 2, padding: 1, outputPadding: 1, groups: 2 })
  expect(up.weight.shape).toEqual([4, 3, 3, 3])
  expect(up.forward(random.normal(random.key(0), [2, 4, 5, 5])).shape).toEqual([2, 6, 10, 10])
  expect(new nn.ConvTranspose1d(4, 2, 3).forward(random.normal(random.key(0), [1, 4, 10])).shape).toEqual([1, 2, 12])
  expect(() => new nn.Conv2d(3, 4, 3, { groups: 2 })).toThrow(/`groups` must divide/)
  expect(() => new nn.Conv2d(3, 4, 3, { outputPadding: 1 } as never)).toThrow(/outputPadding/)
})
