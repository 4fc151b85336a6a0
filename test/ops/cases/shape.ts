import { stopGradient } from '../../../lib/ops/control.js'
import { add, mul } from '../../../lib/ops/elementwise.js'
import {
  alias,
  broadcastTo,
  contiguous,
  expandDims,
  flip,
  full,
  reshape,
  slice,
  squeeze,
  swapAxes,
  tensor,
  transpose,
} from '../../../lib/ops/shape.js'
import { at, fill } from '../arrays.js'
import { arg, ints, type OpCase } from '../check.js'

const every = [[arg([2, 3, 4])], [arg([1, 1, 1])], [arg([0, 3, 2])]]
const large = [[arg([17, 33, 65])]]
const same: OpCase['expected'] = (x) => x.data

export const cases: OpCase[] = [
  { ops: ['reshape'], f: (x) => mul(reshape(x, [-1]), 1), at: every, expected: same },
  {
    ops: ['reshape'],
    name: 'of a transposed operand',
    f: (x) => reshape(transpose(x, [2, 0, 1]), [x.size]),
    at: every,
    large,
    expected: (x) => fill([x.shape[2], x.shape[0], x.shape[1]], ([k, i, j]) => at(x, [i, j, k])),
  },
  {
    ops: ['reshape'],
    name: 'expandDims and squeeze',
    f: (x) => squeeze(expandDims(mul(x, 2), 1), 1),
    at: every,
    expected: (x) => Array.from(x.data, (v) => 2 * v),
  },
  {
    ops: ['transpose'],
    f: (x) => [transpose(x), swapAxes(x, 0, -1), transpose(x, [1, 2, 0])],
    at: every,
    large,
    expected: (x) => {
      const [a, b, c] = x.shape
      const reversed = fill([c, b, a], ([k, j, i]) => at(x, [i, j, k]))
      return [reversed, reversed, fill([b, c, a], ([j, k, i]) => at(x, [i, j, k]))]
    },
  },
  {
    ops: ['slice', 'pad'],
    f: (x) => [slice(x, [null, [1, -1], [0, null, 2]]), slice(x, [[-1], [0, 9, 2]])],
    at: [[arg([2, 3, 4])], [arg([1, 2, 1])], [arg([0, 3, 2])]],
    large,
    expected: (x) => {
      const [a, b, c] = x.shape
      return [
        fill([a, Math.max(0, b - 2), Math.ceil(c / 2)], ([i, j, k]) => at(x, [i, j + 1, 2 * k])),
        fill([Math.min(a, 1), Math.ceil(b / 2), c], ([i, j, k]) => at(x, [a - 1 + i, 2 * j, k])),
      ]
    },
  },
  {
    ops: ['flip'],
    f: (x) => [flip(x), flip(x, [0, -1])],
    at: every,
    large,
    expected: (x) => {
      const [a, b, c] = x.shape
      return [
        fill(x.shape, ([i, j, k]) => at(x, [a - 1 - i, b - 1 - j, c - 1 - k])),
        fill(x.shape, ([i, j, k]) => at(x, [a - 1 - i, j, c - 1 - k])),
      ]
    },
  },
  {
    ops: ['broadcastTo', 'reduce'],
    f: (x) => broadcastTo(x, [2, 3, x.shape[1]]),
    at: [[arg([3, 4])], [arg([1, 1])], [arg([1, 4])], [arg([3, 0])]],
    expected: (x) => fill([2, 3, x.shape[1]], ([, j, k]) => at(x, [x.shape[0] === 1 ? 0 : j, k])),
  },
  { ops: ['alias'], f: (x) => mul(alias(x), 3), at: every, expected: (x) => Array.from(x.data, (v) => 3 * v) },
  {
    ops: ['elementwise'],
    name: 'contiguous',
    f: (x) => contiguous(transpose(x)),
    at: [[arg([3, 4])], [ints([2, 3], 0, 99)]],
    derivatives: 'none',
    vmap: false,
    expected: (x) => fill([x.shape[1], x.shape[0]], ([j, i]) => at(x, [i, j])),
  },
  {
    ops: ['stopGradient'],
    f: (x, y) => mul(stopGradient(x), y),
    at: [[arg([2, 3], { constant: true }), arg([2, 3])]],
    expected: (x, y) => Array.from(x.data, (v, i) => v * y.data[i]),
  },
  {
    ops: ['constant', 'buffer'],
    f: (x) => add(add(x, full([3], 0.5, x.dtype)), tensor([1, 2, 3], { dtype: x.dtype })),
    at: [[arg([3])], [arg([2, 3])]],
    expected: (x) => Array.from(x.data, (v, i) => v + 0.5 + 1 + (i % 3)),
  },
]
