import {
  argmax,
  argmin,
  all,
  any,
  cumprod,
  cumsum,
  linearRecurrence,
  logSumExp,
  max,
  mean,
  min,
  norm,
  prod,
  std,
  sum,
  sumSquares,
  variance,
} from '../../../lib/ops/reduce.js'
import { transpose } from '../../../lib/ops/shape.js'
import type { Tensor } from '../../../lib/tensor/tensor.js'
import { type Arg, arg, given, ints, type OpCase, type Values } from '../check.js'

/** Groups of the elements of x that are reduced to one, in row-major order of what is kept. */
function groups({ shape, data }: Values, axes: readonly number[]): number[][] {
  const kept = shape.flatMap((_, i) => (axes.includes(i) ? [] : [i]))
  const out = Array.from({ length: kept.reduce((n, i) => n * shape[i], 1) }, (): number[] => [])
  const size = shape.reduce((n, d) => n * d, 1)
  for (let at = 0; at < size; at++) {
    let rest = at
    const index = shape.map(() => 0)
    for (let i = shape.length - 1; i >= 0; i--) {
      index[i] = rest % shape[i]
      rest = Math.floor(rest / shape[i])
    }
    out[kept.reduce((k, i) => k * shape[i] + index[i], 0)].push(data[at])
  }
  return out
}

type Reduce = (x: Tensor, options: { axis?: number | number[]; keepDims?: boolean }) => Tensor

const total = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0)
const middle = (xs: readonly number[]): number => total(xs) / xs.length
const spread = (xs: readonly number[], correction = 0): number =>
  total(xs.map((x) => (x - middle(xs)) ** 2)) / Math.max(0, xs.length - correction)

const shapes = { last: [5, 7], first: [5, 7], middle: [3, 5, 2], one: [1, 1, 1], scalar: [] as number[] }
const empty: Arg[][] = [[arg([0, 3])], [arg([3, 0])]]

/** One case per way that a reduction is walked: along the last axis, the first, both around the middle, and everything. */
function reduction(
  name: string,
  f: Reduce,
  plain: (xs: number[]) => number,
  more: Partial<OpCase> & { low?: number; high?: number; nothing?: boolean; op?: string } = {},
): OpCase[] {
  const { low, high, nothing = true, op = 'reduce', ...rest } = more
  const a = (shape: number[]) => arg(shape, { low, high })
  const one = (
    where: string,
    axis: number | number[] | undefined,
    at: Arg[][],
    large: Arg[][],
    options: { keepDims?: boolean; flipped?: boolean } = {},
  ): OpCase => ({
    ops: [op],
    name: `${name} ${where}`,
    f: (x) => f(options.flipped ? transpose(x) : x, { axis, keepDims: options.keepDims }),
    expected: (x) => {
      const axes =
        axis === undefined ? x.shape.map((_, i) => i) : [axis].flat().map((i) => (i < 0 ? i + x.shape.length : i))
      return groups(x, options.flipped ? axes.map((i) => x.shape.length - 1 - i) : axes).map((xs) => plain(xs))
    },
    at,
    large,
    ...rest,
  })
  const none = nothing ? empty : []
  return [
    one(
      'over the last axis',
      -1,
      [[a(shapes.last)], [a([1])], [a([4, 1])], ...none],
      [[a([37, 1031])], [a([3, 70001])], [a([9001, 3])]],
    ),
    one(
      'over the first axis',
      0,
      [[a(shapes.first)], ...none],
      [[a([1031, 37])], [a([70001, 3])], [a([33, 2050])], [a([5001, 1, 2])]],
    ),
    one('over axes 0 and 2', [0, 2], [[a(shapes.middle)], [a(shapes.one)]], [[a([17, 33, 65])]], { keepDims: true }),
    one('over the middle axis', 1, [[a(shapes.middle)]], [[a([9, 130, 67])], [a([3, 65, 1])]]),
    one('over everything', undefined, [[a([3, 5])], [a(shapes.scalar)]], [[a([333, 1001])]]),
  ]
}

const truths = given([3, 4], [0, 1, -2, 0, 0, 0, 0, 0, 3, 1, 1, NaN])
const arg1 = (f: typeof argmax, better: (a: number, b: number) => boolean, name: string): OpCase[] =>
  [0, 1, undefined].map((axis) => ({
    ops: ['argReduce'],
    name: `${name} over ${axis ?? 'everything'}`,
    f: (x) => f(x, { axis, keepDims: axis === 1 }),
    at: [[arg([5, 7])], [given([2, 3], [1, 1, 1, 0, NaN, NaN], { constant: true })], [arg([1, 1])]],
    large: [[arg([37, 1031])], [arg([1031, 37])], [arg([3, 20001])], [arg([20001, 3])]],
    expected: (x) =>
      groups(x, axis === undefined ? [0, 1] : [axis]).map((xs) =>
        xs.reduce((best, v, i) => (!Number.isNaN(xs[best]) && (Number.isNaN(v) || better(v, xs[best])) ? i : best), 0),
      ),
  }))

const running = (
  f: (x: Tensor, o: { axis: number; reverse: boolean; exclusive: boolean }) => Tensor,
  op: string,
  name: string,
  join: (a: number, b: number) => number,
  start: number,
): OpCase[] =>
  [0, 1, 2].flatMap((axis) =>
    [false, true].flatMap((reverse) =>
      [false, true].map((exclusive) => ({
        ops: [op],
        name: `${name} along ${axis}${reverse ? ', reversed' : ''}${exclusive ? ', exclusive' : ''}`,
        f: (x: Tensor) => f(x, { axis, reverse, exclusive }),
        at: [[arg([3, 4, 2], { low: 0.5, high: 1.5 })], [arg([1, 1, 1])], [arg([2, 0, 3])]],
        large: axis === 0 || (reverse && exclusive) ? [[arg([70, 3, 131], { low: -0.9, high: 1.1 })]] : [],
        bounds: { float32: 2e-5, bfloat16: 0.05 },
        expected: ({ shape, data }: Values) => {
          const out = new Float64Array(data.length)
          const [n, inner] = [shape[axis], shape.slice(axis + 1).reduce((a, b) => a * b, 1)]
          const outer = data.length === 0 ? 0 : data.length / n / inner
          for (let o = 0; o < outer; o++) {
            for (let i = 0; i < inner; i++) {
              let carry = start
              for (let k = 0; k < n; k++) {
                const p = (o * n + (reverse ? n - 1 - k : k)) * inner + i
                const next = join(carry, data[p])
                out[p] = exclusive ? carry : next
                carry = next
              }
            }
          }
          return out
        },
      })),
    ),
  )

const kinds = { low: 0.7, high: 1.25, bounds: { float32: 1e-4, bfloat16: 0.1 } }
const someZeros = given([3, 4], [1.5, 0, -2, 0.5, 0, 0, 3, -1, 2, 1, 1, -0.5])
const uniform = { low: -0.9, high: 1.1 }
const whole = (xs: readonly number[]): number => total(xs) | 0

export const cases: OpCase[] = [
  ...reduction('sum', sum, total),
  ...reduction('mean', mean, middle, { nothing: false }),
  ...reduction('sumSquares', sumSquares, (xs) => total(xs.map((x) => x * x))),
  ...reduction('prod', prod, (xs) => xs.reduce((p, x) => p * x, 1), kinds),
  ...reduction('max', max, (xs) => Math.max(...xs), { nothing: false }),
  ...reduction('min', min, (xs) => Math.min(...xs), { nothing: false }),
  ...reduction('logSumExp', logSumExp, (xs) => Math.log(total(xs.map(Math.exp))), { op: 'logSumExp' }),
  ...reduction('norm', norm, (xs) => Math.hypot(...xs), { nothing: false, low: 0.5, high: 1.5 }),
  ...reduction(
    'norm of order 1',
    (x, o) => norm(x, { ...o, ord: 1 }),
    (xs) => total(xs.map(Math.abs)),
    { low: 0.1 },
  ),
  ...reduction('variance', variance, spread, { nothing: false }),
  {
    ops: ['reduce'],
    name: 'prod with zeros',
    f: (x) => prod(x, { axis: 1 }),
    at: [[someZeros]],
    expected: (x) => groups(x, [1]).map((xs) => xs.reduce((p, v) => p * v, 1)),
  },
  {
    ops: ['reduce'],
    name: 'std of a sample',
    f: (x) => std(x, { axis: 0, correction: 1 }),
    at: [[arg([5, 3])]],
    expected: (x) => groups(x, [0]).map((xs) => Math.sqrt(spread(xs, 1))),
  },
  {
    ops: ['reduce'],
    name: 'transposed and over the first axis',
    f: (x) => sum(transpose(x), { axis: 0 }),
    at: [[arg([5, 3])]],
    large: [[arg([257, 129])]],
    expected: (x) => groups(x, [1]).map(total),
  },
  ...([any, all] as const).map(
    (f): OpCase => ({
      ops: ['reduce'],
      name: f === any ? 'any' : 'all',
      f: (x) => f(x, { axis: 1 }),
      at: [[truths], [arg([2, 0])], [arg([0, 2])]],
      large: [[ints([31, 1027], 0, 2)], [ints([3, 70000], -1, 1, { dtype: 'int32' })]],
      expected: (x) =>
        groups(x, [1]).map((xs) => Number(f === any ? xs.some((v) => v !== 0) : xs.every((v) => v !== 0))),
    }),
  ),
  ...(['int32', 'uint8'] as const).map(
    (dtype): OpCase => ({
      ops: ['reduce'],
      name: `sum of ${dtype}, wrapping`,
      f: (x) => sum(x, { axis: 0 }),
      at: [[ints([5, 3], 0, 256, { dtype })], [ints([0, 3], 0, 256, { dtype })]],
      large: [[ints([1001, 17], 0, 256, { dtype })], [ints([70001, 2], 0, 256, { dtype })]],
      expected: (x) => groups(x, [0]).map(whole),
    }),
  ),
  {
    ops: ['reduce'],
    name: 'max and min of int32',
    f: (x) => [max(x, { axis: 1 }), min(x, { axis: 0 })],
    at: [[ints([5, 3], -99, 99)]],
    large: [[ints([131, 1033], -2147483648, 2147483647)]],
    expected: (x) => [groups(x, [1]).map((xs) => Math.max(...xs)), groups(x, [0]).map((xs) => Math.min(...xs))],
  },
  ...arg1(argmax, (a, b) => a > b, 'argmax'),
  ...arg1(argmin, (a, b) => a < b, 'argmin'),
  ...running(cumsum, 'cumsum', 'cumsum', (a, b) => a + b, 0),
  ...running(cumprod, 'linearRecurrence', 'cumprod', (a, b) => a * b, 1),
  {
    ops: ['cumsum'],
    name: 'cumsum of long lines, and of int32',
    f: (x, i) => [cumsum(x, { axis: 0 }), cumsum(i, { axis: 0, reverse: true })],
    at: [[arg([4]), ints([3], 0, 9)]],
    large: [[arg([150001], uniform), ints([100003], -5, 50)]],
    bounds: { bfloat16: 0.05 },
    expected: (x, i) => {
      let carry = 0
      const up = Array.from(x.data, (v) => (carry += v))
      carry = 0
      return [
        up,
        Array.from(i.data)
          .reverse()
          .map((v) => (carry += v))
          .reverse(),
      ]
    },
  },
  ...[0, 1].flatMap((axis) =>
    [false, true].map(
      (reverse): OpCase => ({
        ops: ['linearRecurrence'],
        name: `along ${axis}${reverse ? ', reversed' : ''}`,
        f: (a, b) => linearRecurrence(a, b, { axis, reverse }),
        at: [
          [arg([3, 4]), arg([3, 4])],
          [arg([1, 1]), arg([1, 1])],
          [arg([0, 2]), arg([0, 2])],
        ],
        large: [[arg([61, 131]), arg([61, 131])]],
        expected: ({ shape, data: a }, { data: b }) => {
          const out = new Float64Array(a.length)
          const [rows, columns] = shape
          const n = shape[axis]
          for (let line = 0; line < (axis === 0 ? columns : rows); line++) {
            let h = 0
            for (let k = 0; k < n; k++) {
              const t = reverse ? n - 1 - k : k
              const p = axis === 0 ? t * columns + line : line * columns + t
              h = a[p] * h + b[p]
              out[p] = h
            }
          }
          return out
        },
      }),
    ),
  ),
]
