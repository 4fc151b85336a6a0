import { arange, concat, eye, oneHot, pad, repeat, split, stack, tile, tril, triu } from '../../../lib/ops/assemble.js'
import { add, cast } from '../../../lib/ops/elementwise.js'
import { transpose } from '../../../lib/ops/shape.js'
import { at, fill, put } from '../arrays.js'
import { arg, given, ints, type OpCase, type Values } from '../check.js'

const joined =
  (axis: number) =>
  (...xs: Values[]) => {
    const n = xs.reduce((total, x) => total + x.shape[axis], 0)
    return fill(put(xs[0].shape, axis, n), (index) => {
      let k = index[axis]
      let which = 0
      while (k >= xs[which].shape[axis]) k -= xs[which++].shape[axis]
      return at(xs[which], put(index, axis, k))
    })
  }

const padded = (widths: number[][], value: number) => (x: Values) =>
  fill(
    x.shape.map((d, i) => widths[i][0] + d + widths[i][1]),
    (index) => {
      const inner = index.map((k, i) => k - widths[i][0])
      return inner.every((k, i) => k >= 0 && k < x.shape[i]) ? at(x, inner) : value
    },
  )

const padding = (name: string, widths: number[][], at: OpCase['at'], large: OpCase['at'] = [], value = 0): OpCase => ({
  ops: ['pad'],
  name,
  f: (x) => pad(x, widths, { value }),
  at,
  large,
  expected: padded(widths, value),
})

export const cases: OpCase[] = [
  ...[0, 1, 2].map(
    (axis): OpCase => ({
      ops: ['concat'],
      name: `along ${axis}`,
      f: (...xs) => concat(xs, { axis }),
      at: [
        [arg([2, 3, 2]), arg(put([2, 3, 2], axis, 1)), arg([2, 3, 2])],
        [arg(put([1, 1, 1], axis, 0)), arg([1, 1, 1])],
        [arg(put([0, 0, 0], axis, 2)), arg(put([0, 0, 0], axis, 3))],
      ],
      large: [[arg([33, 65, 17]), arg(put([33, 65, 17], axis, 9))]],
      expected: joined(axis),
    }),
  ),
  {
    ops: ['concat'],
    name: 'of a transposed and a broadcast operand',
    f: (a, b) => concat([transpose(a), add(b, 0)], { axis: 0 }),
    at: [[arg([2, 3]), arg([4, 2])]],
    large: [[arg([65, 257]), arg([3, 65])]],
    expected: (a, b) =>
      fill([a.shape[1] + b.shape[0], a.shape[0]], ([i, j]) =>
        i < a.shape[1] ? at(a, [j, i]) : at(b, [i - a.shape[1], j]),
      ),
  },
  {
    ops: ['concat', 'reshape'],
    name: 'stack, and split of it',
    f: (a, b) => split(stack([a, b], { axis: 1 }), [1, 2], { axis: 2 }),
    at: [[arg([2, 3]), arg([2, 3])]],
    expected: (a, b) => {
      const part = (from: number, n: number) =>
        fill([a.shape[0], 2, n], ([i, k, j]) => at(k === 0 ? a : b, [i, from + j]))
      return [part(0, 1), part(1, 2)]
    },
  },
  padding(
    'on both sides',
    [
      [1, 2],
      [0, 1],
    ],
    [[arg([3, 2])], [arg([0, 2])], [arg([1, 1])]],
    [[arg([130, 517])]],
    2.5,
  ),
  padding(
    'of outer axes alone',
    [
      [1, 0],
      [2, 1],
      [0, 0],
    ],
    [[arg([2, 3, 2])], [arg([2, 0, 1])]],
    [[arg([9, 11, 1030])]],
  ),
  padding('of int32', [[0, 3]], [[ints([4], -9, 9)]], [], -7),
  {
    ops: ['pad'],
    name: 'of a transposed operand',
    f: (x) =>
      pad(transpose(x), [
        [1, 1],
        [2, 0],
      ]),
    at: [[arg([2, 3])]],
    large: [[arg([257, 131])]],
    expected: (x) =>
      padded(
        [
          [1, 1],
          [2, 0],
        ],
        0,
      )({ shape: [x.shape[1], x.shape[0]], data: fill([x.shape[1], x.shape[0]], ([i, j]) => at(x, [j, i])) }),
  },
  {
    ops: ['broadcastTo'],
    name: 'tile and repeat',
    f: (x) => [tile(x, [2, 1, 3]), repeat(x, 2, { axis: 1 })],
    at: [[arg([2, 3])], [arg([0, 1])]],
    large: [[arg([65, 257])]],
    expected: (x) => [
      fill([2, x.shape[0], 3 * x.shape[1]], ([, i, j]) => at(x, [i, j % x.shape[1]])),
      fill([x.shape[0], 2 * x.shape[1]], ([i, j]) => at(x, [i, j >> 1])),
    ],
  },
  {
    ops: ['iota'],
    name: 'in triangles',
    f: (x) => [tril(x, -1), triu(x, 1)],
    at: [[arg([2, 3, 4])], [arg([1, 1])], [arg([0, 3])]],
    expected: (x) => {
      const half = (keep: (i: number, j: number) => boolean) =>
        fill(x.shape, (index) => (keep(index.at(-2)!, index.at(-1)!) ? at(x, index) : 0))
      return [half((i, j) => j <= i - 1), half((i, j) => j >= i + 1)]
    },
  },
  {
    ops: ['iota'],
    name: 'arange and eye',
    f: (x) => [add(x, arange(5, 0, { step: -1.25, dtype: x.dtype })), cast(eye(2, { columns: 3 }), x.dtype)],
    at: [[given([4], [1, 2, 3, 4])]],
    expected: (x) => [fill([4], ([i]) => x.data[i] + 5 - 1.25 * i), [1, 0, 0, 0, 1, 0]],
  },
  {
    ops: ['iota'],
    name: 'oneHot, with an index that is no class',
    f: (i) => oneHot(i, 3),
    at: [[given([2, 2], [0, 2, 1, 3], { dtype: 'int32' })], [ints([0], 0, 3)]],
    expected: (i) => fill([...i.shape, 3], (index) => Number(at(i, index.slice(0, -1)) === index.at(-1))),
  },
]
