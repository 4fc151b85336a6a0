import { stopGradient } from '../../../lib/ops/control.js'
import { flip } from '../../../lib/ops/shape.js'
import { maskBySigns, packSigns } from '../../../lib/ops/signs.js'
import { arg, type OpCase } from '../check.js'

export const cases: OpCase[] = [
  {
    ops: ['packSigns', 'maskBySigns'],
    name: 'what is above 0 in the opposite place',
    f: (x) => maskBySigns(x, packSigns(stopGradient(flip(x)))),
    at: [[arg([3, 21])], [arg([2, 2, 8])], [arg([1])]],
    expected: ({ data }) => Array.from(data, (v, i) => (data[data.length - 1 - i] > 0 ? v : 0)),
  },
]
