import { cast } from '../../../lib/ops/elementwise.js'
import { random } from '../../../lib/ops/random.js'
import { putRecords, rowNorms, sampleRows, takeScaled } from '../../../lib/ops/sampling.js'
import { tensor } from '../../../lib/ops/shape.js'
import type { Tensor } from '../../../lib/tensor/tensor.js'
import { arg, type OpCase } from '../check.js'

const key = random.key(5)
const picked = [2, 0, 2]
const wide = (x: Tensor): Tensor => cast(x, x.dtype === 'float64' ? 'float64' : 'float32')
const bounds = { float32: 8 * 2 ** -24, bfloat16: 8 * 2 ** -8 }

export const cases: OpCase[] = [
  {
    ops: ['rowNorms'],
    f: (x) => rowNorms(x),
    at: [[arg([5, 7])]],
    expected: ({ data }) =>
      Array.from({ length: 5 }, (_, r) => Math.hypot(...Array.from({ length: 7 }, (_, i) => data[7 * r + i]))),
    bounds,
  },
  {
    ops: ['sampleRows'],
    name: 'weights of what is drawn',
    f: (x) => sampleRows(rowNorms(wide(x)), key, { k: 3 }).weights,
    at: [[arg([8, 3], { constant: true, shared: true })]],
    bounds,
  },
  {
    ops: ['takeScaled'],
    f: (x, w) => takeScaled(x, tensor(Int32Array.from(picked)), wide(w)),
    at: [[arg([4, 5]), arg([3])]],
    expected: (x, w) => picked.flatMap((r, i) => Array.from({ length: 5 }, (_, j) => x.data[5 * r + j] * w.data[i])),
    bounds,
  },
  {
    ops: ['putRecords'],
    f: (state, records) => putRecords(wide(state), tensor(Int32Array.from([3, 0])), wide(records)),
    at: [[arg([9]), arg([2, 2])]],
    expected: (state, { data }) => {
      const out = Float64Array.from(state.data)
      out.set([data[2], data[3]], 0)
      out.set([data[0], data[1]], 6)
      return out
    },
    derivatives: 'none',
    vmap: false,
  },
]
