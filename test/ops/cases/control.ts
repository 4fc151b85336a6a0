import { allReduce } from '../../../lib/ops/collective.js'
import { accumulate, assign, guard } from '../../../lib/ops/control.js'
import { mul, square } from '../../../lib/ops/elementwise.js'
import { transpose } from '../../../lib/ops/shape.js'
import { wide } from '../../../lib/ops/batching.js'
import { arg, type OpCase } from '../check.js'

/** State of a step. Outside of a step the memory of the state is a copy: the operand keeps its numbers. */
export const cases: OpCase[] = [
  {
    ops: ['assign'],
    f: (state, value) => [assign(state, transpose(square(value))), mul(state, 2)],
    at: [
      [arg([3, 5], { constant: true }), arg([5, 3])],
      [arg([1, 1], { constant: true }), arg([1, 1])],
      [arg([0, 2], { constant: true }), arg([2, 0])],
    ],
    large: [[arg([257, 130], { constant: true }), arg([130, 257])]],
    expected: (state, { shape: [n, m], data }) => [
      Array.from({ length: n * m }, (_, at) => data[(at % n) * m + Math.floor(at / n)] ** 2),
      Array.from(state.data, (v) => 2 * v),
    ],
    vmap: false,
  },
  {
    ops: ['accumulate'],
    f: (state, value) => [accumulate(wide(state), square(value)), mul(state, 2)],
    at: [
      [arg([3, 5]), arg([3, 5])],
      [arg([]), arg([])],
      [arg([2, 0]), arg([2, 0])],
    ],
    large: [[arg([70001]), arg([70001])]],
    expected: (state, value) => [
      Array.from(state.data, (v, i) => v + value.data[i] ** 2),
      Array.from(state.data, (v) => 2 * v),
    ],
    derivatives: 'none',
    vmap: false,
  },
  {
    ops: ['guard'],
    f: (x) => guard(square(x)),
    at: [[arg([3, 5])], [arg([])], [arg([0, 2])]],
    large: [[arg([70001])]],
    expected: ({ data }) => Array.from(data, (v) => v ** 2),
  },
  {
    // A process that trains alone.
    ops: ['allReduce'],
    f: (x) => allReduce(square(x)),
    at: [[arg([3, 5])], [arg([])], [arg([0, 2])]],
    large: [[arg([70001])]],
    expected: ({ data }) => Array.from(data, (v) => v ** 2),
  },
]
