import { expect, test } from 'vitest'
import { build } from '../../lib/graph/executable.js'
import { finalBuf } from '../../lib/graph/instruction.js'
import { schedule } from '../../lib/graph/graph.js'
import { optimize } from '../../lib/graph/passes/index.js'
import { sums } from '../../lib/graph/passes/sums.js'
import {
  add,
  cast,
  type DType,
  embedding,
  grad,
  matmul,
  mul,
  pad,
  random,
  segmentSum,
  slice,
  sum,
  tanh,
  type Tensor,
  tensor,
  transpose,
} from '../../lib/index.js'
import { trace } from '../../lib/transform/trace.js'

const names = (outputs: readonly Tensor[]) => schedule(outputs).map((n) => n.op.name)

test('the gradient of what was cut in slices is put together, not added up', async () => {
  const x = random.normal(random.key(1), [3, 12])
  const loss = (x: Tensor) => {
    const y = tanh(x)
    const [a, b, c] = [0, 1, 2].map((i) => slice(y, [null, [4 * i, 4 * i + 4]]))
    return sum(mul(mul(a, b), add(c, a)))
  }
  const { graph } = trace('slices', (x: Tensor) => grad(loss)(x), [x])
  expect(names(graph.outputs).filter((n) => n === 'pad')).toHaveLength(3)
  const after = names(optimize(graph).outputs)
  expect(after).toContain('concat')
  expect(after).not.toContain('pad')
  const [g, value] = [await grad(loss)(x).read(), await x.read()]
  const at = (i: number, j: number) => Math.tanh(value[i * 12 + j])
  for (let i = 0; i < 3; i++) {
    for (let j = 0; j < 4; j++) {
      const [a, b, c] = [at(i, j), at(i, j + 4), at(i, j + 8)]
      expect(g[i * 12 + j]).toBeCloseTo((b * (c + a) + a * b) * (1 - a * a), 5)
      expect(g[i * 12 + j + 4]).toBeCloseTo(a * (c + a) * (1 - b * b), 5)
      expect(g[i * 12 + j + 8]).toBeCloseTo(a * b * (1 - c * c), 5)
    }
  }
})

test('pieces that leave a gap, overlap or hold another value than zero stay a sum', () => {
  const piece = (before: number, after: number, value = 0) =>
    pad(
      random.normal(random.key(before), [2, 6 - before - after]),
      [
        [0, 0],
        [before, after],
      ],
      { value },
    )
  const kept = (...pieces: Tensor[]) => {
    const graph = sums({ inputs: [], outputs: [pieces.reduce((a, b) => add(a, b))] })
    return !names(graph.outputs).includes('concat')
  }
  expect(kept(piece(0, 4), piece(2, 2), piece(4, 0))).toBe(false)
  expect(kept(piece(4, 0), piece(0, 4), piece(2, 2))).toBe(false)
  expect(kept(piece(0, 4), piece(4, 0))).toBe(true)
  expect(kept(piece(0, 2), piece(3, 0))).toBe(true)
  expect(kept(piece(0, 3), piece(2, 0))).toBe(true)
  expect(kept(piece(0, 3, 1), piece(3, 0))).toBe(true)
})

test('the gradient of rows is added to that of the whole table in its memory', async () => {
  const [vocab, width] = [512, 64]
  const table = random.normal(random.key(1), [vocab, width])
  const ids = tensor(Int32Array.from({ length: 40 }, (_, i) => (i * 7) % 30))
  const loss = (w: Tensor) => sum(tanh(matmul(w, transpose(embedding(w, ids)))))
  const { graph } = trace('tied', (w: Tensor) => grad(loss)(w), [table])
  const rows = schedule(optimize(graph).outputs).filter((n) => n.op.name === 'segmentSum')
  expect(rows.map((n) => n.attrs.base)).toEqual([true])
  const { plan } = build(trace('tied', (w: Tensor) => tanh(grad(loss)(w)), [table]).graph)
  const onto = plan.instructions.find((i) => i.op.name === 'segmentSum')!
  expect(finalBuf(onto.outputs[0].buf)).toBe(finalBuf(onto.inputs[2].buf))
  // Against the two parts by themselves.
  const whole = await grad((w: Tensor) => sum(tanh(matmul(w, transpose(embedding(table, ids))))))(table).read()
  const part = await grad((w: Tensor) => sum(tanh(matmul(table, transpose(embedding(w, ids))))))(table).read()
  const together = await grad(loss)(table).read()
  expect([...together]).toEqual([...whole.map((x, i) => x + part[i])].map(Math.fround))
})

test.each<DType>(['float32', 'bfloat16', 'float64', 'int32'])(
  'rows are added to a base as a sum of two tensors adds them: %s',
  async (dtype) => {
    const n = 3000
    const values = cast(mul(random.normal(random.key(2), [n, 5]), 100), dtype)
    const ids = tensor(Int32Array.from({ length: n }, (_, i) => (i % 3 === 0 ? 2 : (i * 31) % 11)))
    const base = () => cast(mul(random.normal(random.key(4), [13, 5]), 50), dtype)
    const apart = segmentSum(values, ids, 13)
    await apart.read()
    const expected = await add(base(), apart).read()
    const graph = { inputs: [], outputs: [add(base(), segmentSum(values, ids, 13))] }
    expect(schedule(sums(graph).outputs).some((node) => node.attrs.base === true)).toBe(true)
    expect([...(await add(base(), segmentSum(values, ids, 13)).read())]).toEqual([...expected])
  },
)
