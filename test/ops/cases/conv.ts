import { conv1d, conv2d, convTranspose1d, convTranspose2d } from '../../../lib/ops/conv.js'
import { broadcastTo, flip, slice, transpose } from '../../../lib/ops/shape.js'
import type { Tensor } from '../../../lib/tensor/tensor.js'
import { type Arg, arg, type OpCase, type Values } from '../check.js'
import { at, fill } from '../arrays.js'

interface How {
  readonly stride?: number | readonly number[]
  readonly padding?: number | readonly (readonly [number, number])[]
  readonly dilation?: number | readonly number[]
  readonly groups?: number
  readonly outputPadding?: number | readonly number[]
}
interface Axis {
  readonly stride: number
  readonly dilation: number
  readonly before: number
  readonly after: number
  readonly more: number
}

const axesOf = (how: How, axes: number): Axis[] =>
  Array.from({ length: axes }, (_, i) => {
    const one = (v: number | readonly number[] | undefined, or: number) =>
      typeof v === 'number' ? v : v === undefined ? or : v[i]
    const { padding = 0 } = how
    const [before, after] = typeof padding === 'number' ? [padding, padding] : padding[i]
    return {
      stride: one(how.stride, 1),
      dilation: one(how.dilation, 1),
      before,
      after,
      more: one(how.outputPadding, 0),
    }
  })

/** Every product of a convolution: where its output, input and weight lie. */
function eachProduct(
  [n, c, ...inner]: readonly number[],
  [o, perGroup, ...kernel]: readonly number[],
  counts: readonly number[],
  axes: readonly Axis[],
  f: (y: number[], x: number[], w: number[]) => void,
): void {
  const groups = c / perGroup
  const places = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1)
  const indexOf = (k: number, shape: readonly number[]) => {
    const index: number[] = []
    for (let i = shape.length - 1; i >= 0; i--) {
      index.unshift(k % shape[i])
      k = Math.floor(k / shape[i])
    }
    return index
  }
  for (let b = 0; b < n; b++)
    for (let out = 0; out < o; out++)
      for (let p = 0; p < places(counts); p++)
        for (let ch = 0; ch < perGroup; ch++)
          for (let t = 0; t < places(kernel); t++) {
            const [i, k] = [indexOf(p, counts), indexOf(t, kernel)]
            const from = i.map((v, a) => v * axes[a].stride + k[a] * axes[a].dilation - axes[a].before)
            if (from.some((v, a) => v < 0 || v >= inner[a])) continue
            f([b, out, ...i], [b, Math.floor(out / (o / groups)) * perGroup + ch, ...from], [out, ch, ...k])
          }
}

const flatAt = (shape: readonly number[], index: readonly number[]): number =>
  index.reduce((k, v, i) => k * shape[i] + v, 0)

export function convolved(x: Values, w: Values, bias: Values | undefined, how: How): Float64Array {
  const axes = axesOf(how, x.shape.length - 2)
  const counts = axes.map((a, i) => {
    const reach = a.dilation * (w.shape[2 + i] - 1) + 1
    return Math.floor((x.shape[2 + i] + a.before + a.after - reach) / a.stride) + 1
  })
  const shape = [x.shape[0], w.shape[0], ...counts]
  const out = fill(shape, ([, o]) => (bias ? bias.data[o] : 0))
  eachProduct(x.shape, w.shape, counts, axes, (y, from, k) => {
    out[flatAt(shape, y)] += at(x, from) * at(w, k)
  })
  return out
}

export function spread(x: Values, w: Values, bias: Values | undefined, how: How): Float64Array {
  const axes = axesOf(how, x.shape.length - 2)
  const size = axes.map(
    (a, i) => (x.shape[2 + i] - 1) * a.stride - a.before - a.after + a.dilation * (w.shape[2 + i] - 1) + 1 + a.more,
  )
  const shape = [x.shape[0], w.shape[1] * (how.groups ?? 1), ...size]
  const out = fill(shape, ([, o]) => (bias ? bias.data[o] : 0))
  eachProduct(shape, w.shape, x.shape.slice(2), axes, (y, to, k) => {
    out[flatAt(shape, to)] += at(x, y) * at(w, k)
  })
  return out
}

const args = (...shapes: number[][]): Arg[] => shapes.map((shape) => arg(shape))

/** One geometry, with and without a bias. */
function forward(name: string, how: How, at: number[][][], large: number[][][] = []): OpCase {
  return {
    ops: ['conv', 'convInputBackward', 'convWeightBackward'],
    name,
    f: (x, w, bias) => (x.rank === 3 ? conv1d : conv2d)(x, w, { ...how, bias } as never),
    expected: (x, w, bias) => convolved(x, w, bias, how),
    at: at.map((shapes) => args(...shapes)),
    large: large.map((shapes) => args(...shapes)),
    bounds: BOUNDS,
    perLevel: true,
  }
}
function transposed(name: string, how: How, at: number[][][], large: number[][][] = []): OpCase {
  return {
    ops: ['convInputBackward', 'conv', 'convWeightBackward'],
    name,
    f: (x, w, bias) => (x.rank === 3 ? convTranspose1d : convTranspose2d)(x, w, { ...how, bias } as never),
    expected: (x, w, bias) => spread(x, w, bias, how),
    at: at.map((shapes) => args(...shapes)),
    large: large.map((shapes) => args(...shapes)),
    bounds: BOUNDS,
    perLevel: true,
  }
}
// Sums of several hundred products.
const BOUNDS = { float64: 1e-12, float32: 2e-5, bfloat16: 3e-2 }

/** Operands that no kernel finds as they lie in memory. */
const crooked = (f: (x: Tensor, w: Tensor) => Tensor): ((x: Tensor, w: Tensor) => Tensor) => {
  return (x, w) => f(flip(transpose(x, [1, 0, 3, 2]), [2]), slice(transpose(w, [3, 2, 1, 0]), [null, null, [0, 3, 2]]))
}

export const cases: readonly OpCase[] = [
  forward(
    'plain',
    {},
    [
      [
        [2, 3, 5, 4],
        [4, 3, 3, 2],
      ],
      [[1, 1, 1, 1], [1, 1, 1, 1], [1]],
      [[0, 2, 4, 4], [3, 2, 2, 2], [3]],
      [[2, 0, 3, 3], [2, 0, 2, 2], [2]],
      [[2, 3, 4, 3], [2, 3, 4, 3], [2]],
    ],
    [
      [[3, 5, 33, 35], [19, 5, 3, 3], [19]],
      [[2, 33, 17, 16], [34, 33, 1, 1], [34]],
    ],
  ),
  forward(
    'padded',
    {
      padding: [
        [1, 2],
        [0, 3],
      ],
    },
    [[[2, 2, 4, 3], [3, 2, 3, 3], [3]]],
    [[[9, 64, 8, 8], [64, 64, 3, 3], [64]]],
  ),
  forward('padded beyond the kernel', { padding: 3 }, [
    [
      [1, 2, 2, 3],
      [2, 2, 2, 2],
    ],
  ]),
  forward(
    'in steps',
    { stride: [2, 3], padding: 1 },
    [
      [[1, 2, 7, 6], [3, 2, 3, 2], [3]],
      [
        [2, 1, 5, 4],
        [2, 1, 1, 1],
      ],
    ],
    [
      [[2, 3, 32, 40], [16, 3, 7, 7], [16]],
      [
        [2, 40, 16, 15],
        [24, 40, 1, 1],
      ],
    ],
  ),
  forward('steps longer than the kernel', { stride: 4, padding: 1 }, [[[2, 2, 6, 9], [2, 2, 2, 3], [2]]]),
  forward(
    'dilated',
    { dilation: [2, 3], padding: 2, stride: [1, 2] },
    [[[2, 2, 6, 7], [2, 2, 2, 3], [2]]],
    [
      [
        [2, 17, 20, 24],
        [17, 17, 3, 3],
      ],
    ],
  ),
  forward(
    'in groups',
    { groups: 2, padding: 1 },
    [[[2, 4, 4, 5], [6, 2, 3, 2], [6]]],
    [[[3, 64, 14, 14], [96, 32, 3, 3], [96]]],
  ),
  forward(
    'depthwise',
    { groups: 3, padding: 1, stride: 2 },
    [
      [[2, 3, 5, 4], [3, 1, 3, 3], [3]],
      [
        [1, 3, 4, 4],
        [6, 1, 2, 2],
      ],
    ],
    [
      [[5, 3, 37, 33], [3, 1, 3, 3], [3]],
      [[4, 6, 20, 20], [12, 2, 5, 5], [12]],
    ],
  ),
  forward(
    'over one axis',
    { stride: 2, padding: 2, dilation: 2 },
    [
      [[2, 3, 9], [4, 3, 3], [4]],
      [
        [1, 1, 1],
        [1, 1, 1],
      ],
    ],
    [[[2, 9, 3001], [20, 9, 5], [20]]],
  ),
  {
    ops: ['conv', 'convInputBackward', 'convWeightBackward'],
    name: 'strided operands',
    f: crooked((x, w) => conv2d(x, w, { padding: 1, stride: 2 })),
    expected: (x, w) => {
      const xs = [x.shape[1], x.shape[0], x.shape[3], x.shape[2]]
      const ws = [w.shape[3], w.shape[2], 2, w.shape[0]]
      const seen = { shape: xs, data: fill(xs, ([a, b, c, d]) => at(x, [b, a, d, xs[2] - 1 - c])) }
      const kernel = { shape: ws, data: fill(ws, ([a, b, c, d]) => at(w, [d, 2 * c, b, a])) }
      return convolved(seen, kernel, undefined, { padding: 1, stride: 2 })
    },
    at: [args([2, 3, 5, 4], [2, 3, 2, 4])],
    large: [args([18, 3, 20, 24], [3, 4, 18, 20])],
    bounds: BOUNDS,
    perLevel: true,
  },
  {
    ops: ['conv', 'convInputBackward', 'convWeightBackward'],
    name: 'an image and a kernel that repeat',
    f: (x, w) => conv2d(broadcastTo(x, [2, 3, 4, 5]), broadcastTo(w, [2, 3, 2, 2])),
    expected: (x, w) => {
      const seen = { shape: [2, 3, 4, 5], data: fill([2, 3, 4, 5], ([, c, , d]) => at(x, [c, 0, d])) }
      const kernel = { shape: [2, 3, 2, 2], data: fill([2, 3, 2, 2], ([a]) => at(w, [a, 0, 0, 0])) }
      return convolved(seen, kernel, undefined, {})
    },
    at: [args([3, 1, 5], [2, 1, 1, 1])],
    bounds: BOUNDS,
    perLevel: true,
  },
  transposed(
    'transposed',
    { stride: 2, padding: 1, outputPadding: 1 },
    [
      [[2, 3, 3, 2], [3, 2, 3, 3], [2]],
      [
        [0, 2, 3, 3],
        [2, 1, 2, 2],
      ],
    ],
    [[[3, 33, 9, 8], [33, 20, 4, 4], [20]]],
  ),
  transposed('transposed in groups', { groups: 2, dilation: 2, stride: [1, 3] }, [[[1, 4, 3, 2], [4, 2, 2, 2], [4]]]),
  transposed(
    'transposed over one axis',
    { stride: 3, padding: 1 },
    [[[2, 2, 4], [2, 3, 4], [3]]],
    [
      [
        [2, 12, 901],
        [12, 8, 6],
      ],
    ],
  ),
]
