import { adaptiveAvgPool, avgPool, maxPool } from '../../../lib/ops/pooling.js'
import { flip, transpose } from '../../../lib/ops/shape.js'
import { arg, type Arg, type OpCase, type Values } from '../check.js'
import { at, fill } from '../arrays.js'

interface How {
  readonly size: number | readonly number[]
  readonly stride?: number | readonly number[]
  readonly padding?: number | readonly number[]
  readonly dilation?: number | readonly number[]
  readonly ceilMode?: boolean
  readonly countIncludePad?: boolean
}

const one = (v: number | readonly number[] | undefined, i: number, or: number): number =>
  typeof v === 'number' ? v : v === undefined ? or : v[i]

/** Of every window the numbers that it sees, and how many places of input and padding it covers. */
function pooled(x: Values, how: How, reduce: (seen: number[], places: number) => number): Float64Array {
  const lengths = x.shape.slice(2)
  const axes = lengths.map((length, i) => {
    const size = one(how.size, i, 1)
    const stride = one(how.stride, i, size)
    const pad = one(how.padding, i, 0)
    const dilation = one(how.dilation, i, 1)
    const room = length + 2 * pad - dilation * (size - 1) - 1
    let count = (how.ceilMode ? Math.ceil(room / stride) : Math.floor(room / stride)) + 1
    if (how.ceilMode && (count - 1) * stride >= length + pad) count--
    return { length, size, stride, pad, dilation, count }
  })
  return fill([x.shape[0], x.shape[1], ...axes.map((a) => a.count)], ([n, c, ...window]) => {
    let index: number[][] = [[]]
    let places = 1
    axes.forEach((a, i) => {
      const start = window[i] * a.stride - a.pad
      const stands = Array.from({ length: a.size }, (_, t) => start + t * a.dilation)
      places *= stands.filter((p) => p < a.length + a.pad).length
      const inside = stands.filter((p) => p >= 0 && p < a.length)
      index = index.flatMap((before) => inside.map((p) => [...before, p]))
    })
    return reduce(
      index.map((p) => at(x, [n, c, ...p])),
      places,
    )
  })
}

const largest = (seen: number[]): number => seen.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
const total = (seen: number[]): number => seen.reduce((a, b) => a + b, 0)

const max = (name: string, how: How, shapes: number[][], large: number[][] = []): OpCase => ({
  ops: ['maxPool', 'maxPoolBackward'],
  name,
  f: (x) => maxPool(x, how),
  expected: (x) => pooled(x, how, largest),
  at: shapes.map((s): Arg[] => [arg(s)]),
  large: large.map((s): Arg[] => [arg(s)]),
})
const average = (name: string, how: How, shapes: number[][], large: number[][] = []): OpCase => ({
  ops: ['avgPool', 'avgPoolBackward'],
  name,
  f: (x) => avgPool(x, how),
  expected: (x) =>
    pooled(x, how, (seen, places) => total(seen) / ((how.countIncludePad ?? true) ? places : seen.length)),
  at: shapes.map((s): Arg[] => [arg(s)]),
  large: large.map((s): Arg[] => [arg(s)]),
})

export const cases: readonly OpCase[] = [
  max(
    'side by side',
    { size: 2 },
    [
      [2, 3, 4, 5],
      [1, 1, 2, 2],
      [0, 2, 4, 4],
      [2, 0, 4, 4],
    ],
    [[5, 7, 33, 36]],
  ),
  max(
    'overlapping',
    { size: 3, stride: 2, padding: 1 },
    [
      [1, 2, 5, 6],
      [1, 1, 1, 1],
    ],
    [[3, 5, 40, 71]],
  ),
  max('dilated', { size: [2, 3], stride: [1, 2], padding: [0, 1], dilation: [3, 2] }, [[2, 2, 6, 7]]),
  max('with a last window', { size: 3, stride: 2, ceilMode: true }, [[2, 1, 6, 4]], [[2, 3, 18, 20]]),
  max('over one axis', { size: 3, stride: 2, padding: 1 }, [[2, 3, 7]], [[2, 5, 4001]]),
  average(
    'side by side',
    { size: 2 },
    [
      [2, 3, 4, 5],
      [1, 1, 2, 2],
      [0, 2, 4, 4],
    ],
    [[5, 7, 33, 36]],
  ),
  average('overlapping', { size: [3, 2], stride: [2, 1], padding: 1 }, [[1, 2, 5, 4]], [[3, 5, 40, 71]]),
  average('without the padding', { size: 3, stride: 2, padding: 1, countIncludePad: false }, [
    [1, 2, 5, 4],
    [1, 1, 1, 1],
  ]),
  average('with a last window', { size: 3, stride: 2, padding: 1, ceilMode: true }, [[2, 1, 6, 4]], [[2, 3, 18, 20]]),
  average(
    'with a last window, without the padding',
    { size: 4, stride: 3, padding: 2, ceilMode: true, countIncludePad: false },
    [[1, 2, 6, 7]],
  ),
  average('over one axis', { size: 3, stride: 2, padding: 1 }, [[2, 3, 7]], [[2, 5, 4001]]),
  {
    ops: ['maxPool', 'maxPoolBackward', 'avgPool', 'avgPoolBackward'],
    name: 'strided operands',
    f: (x) => {
      const seen = flip(transpose(x, [3, 2, 1, 0]), [3])
      return [maxPool(seen, { size: 2 }), avgPool(seen, { size: 2 })]
    },
    expected: (x) => {
      const [a, b, c, d] = x.shape
      const shape = [d, c, b, a]
      const seen = { shape, data: fill(shape, ([i, j, k, l]) => at(x, [a - 1 - l, k, j, i])) }
      return [pooled(seen, { size: 2 }, largest), pooled(seen, { size: 2 }, (s) => total(s) / 4)]
    },
    at: [[arg([4, 5, 2, 3])]],
  },
  ...(
    [
      [undefined, [2, 3, 5, 4]],
      [
        [2, 2],
        [1, 2, 4, 6],
      ],
      [
        [3, 2],
        [1, 2, 5, 7],
      ],
      [4, [2, 2, 3]],
      [3, [1, 2, 7]],
    ] as const
  ).map(
    ([size, shape]): OpCase => ({
      ops: size === undefined || shape.length === 3 ? [] : size[0] === 2 ? ['avgPool'] : ['matmul'],
      name: `adaptive to ${size ?? 1}`,
      f: (x) => adaptiveAvgPool(x, { size }),
      expected: (x) => {
        const lengths = x.shape.slice(2)
        const parts = lengths.map((_, i) => one(size, i, 1))
        return fill([...x.shape.slice(0, 2), ...parts], ([n, c, ...part]) => {
          let index: number[][] = [[]]
          part.forEach((p, i) => {
            const [from, to] = [Math.floor((p * lengths[i]) / parts[i]), Math.ceil(((p + 1) * lengths[i]) / parts[i])]
            index = index.flatMap((before) => Array.from({ length: to - from }, (_, k) => [...before, from + k]))
          })
          return total(index.map((p) => at(x, [n, c, ...p]))) / index.length
        })
      },
      at: [[arg([...shape])]],
      perLevel: true,
    }),
  ),
]
