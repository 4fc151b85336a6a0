import { dropout, random } from '../../../lib/ops/random.js'
import { arg, type OpCase } from '../check.js'

const key = random.key(5)

/** What is drawn, and how it is spread, is in random.test.ts. */
export const cases: OpCase[] = [
  {
    ops: ['random', 'splitKey', 'foldKey'],
    f: () => random.normal(random.split(random.foldIn(key, 3), 2), [5]),
    at: [[]],
  },
  {
    ops: ['dropout'],
    f: (x) => dropout(x, { p: 0.3, key }),
    at: [[arg([5, 33], { shared: true })]],
    bounds: { float32: 8 * 2 ** -24, bfloat16: 8 * 2 ** -8 },
  },
  { ops: ['categorical'], f: (x) => random.categorical(key, x), at: [[arg([5, 33], { shared: true })]] },
]
