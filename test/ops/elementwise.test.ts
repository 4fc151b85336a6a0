import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import { SteepestError } from '../../lib/errors.js'
import { readAll } from '../../lib/graph/evaluate.js'
import { schedule } from '../../lib/graph/graph.js'
import { ELEMENTWISE } from '../../lib/graph/table.gen.js'
import {
  add,
  cast,
  clip,
  div,
  equal,
  exp,
  greater,
  isNaN,
  log,
  maximum,
  minimum,
  mul,
  pow,
  relu,
  sub,
  where,
} from '../../lib/ops/elementwise.js'
import { sum } from '../../lib/ops/reduce.js'
import { broadcastTo, flip, full, slice, tensor, transpose } from '../../lib/ops/shape.js'
import { type DType, isFloat } from '../../lib/tensor/dtype.js'
import { broadcastShapes, type Shape, sizeOf } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad, jvp, vjp } from '../../lib/transform/index.js'
import { root } from '../house/scan.js'
import { type Case, cases } from './elementwise-cases.js'
import { checkDerivatives, expectClose, type Fn, noise, random } from './differences.js'
import { expectSameBits } from './threads.js'

const rows = Object.entries(cases)
const smooth = rows.filter(([, c]) => c.smooth !== false)

/** Numbers within the domain of operand `i`. */
function operand(c: Case, i: number, shape: Shape, dtype: DType = 'float64'): Tensor {
  const [low, high] = c.domain[i]
  const numbers = noise(sizeOf(shape), 7 * i + 3).map((u) => low + ((u + 1) / 2) * (high - low))
  return tensor(c.whole ? numbers.map(Math.round) : numbers, { dtype, shape })
}
const operands = (c: Case, shapes: readonly Shape[], dtype?: DType): Tensor[] =>
  c.domain.map((_, i) => operand(c, i, shapes[i % shapes.length], dtype))
/** The case as a function of numbers in (−1, 1). */
const centred =
  (c: Case): Fn =>
  (...us) =>
    c.f(...us.map((u, i) => add(mul(u, (c.domain[i][1] - c.domain[i][0]) / 2), (c.domain[i][1] + c.domain[i][0]) / 2)))
const bits = (t: Tensor) => cast(t, 'float64')

describe('the table', () => {
  test('has a case for each elementwise row, and none for another', () => {
    expect(Object.keys(cases).sort()).toEqual([...ELEMENTWISE].sort())
  })

  test.each(rows)('%s is what its case computes', (name, c) => {
    const graph = schedule([c.f(...operands(c, [[2]]))])
    expect(graph.map((node) => node.op.name)).toContain(name)
  })
})

describe('values', () => {
  test.each(rows)('of %s', async (_, c) => {
    const xs = operands(c, [[257]])
    const [y, ...given] = await readAll([c.f(...xs), ...xs])
    y.forEach((got: number, i: number) => {
      const want = c.value(...given.map((v) => v[i]))
      expect(Math.abs(got - want)).toBeLessThanOrEqual(2e-14 * Math.max(0.1, Math.abs(want)))
    })
  })

  // The accuracy of float32 and bfloat16 at the level of this process; the last test runs it at every level.
  test.each(rows)('accuracy of %s', async (_, c) => {
    for (const [dtype, bound] of [
      ['float32', 8 * 2 ** -24],
      ['bfloat16', 2 ** -7],
    ] as const) {
      const xs = operands(c, [[257]], dtype)
      // Both from the same rounded operands.
      const [got, want] = await readAll([bits(c.f(...xs)), bits(c.f(...xs.map(bits)))])
      got.forEach((v: number, i: number) =>
        expect(Math.abs(v - want[i])).toBeLessThanOrEqual(bound * Math.max(0.5, Math.abs(want[i]))),
      )
    }
  })

  test('integers keep their dtype and wrap; fractions make them float32', async () => {
    const whole = tensor([7, -7, 2 ** 31 - 1], { dtype: 'int32' })
    const bytes = tensor([3, 250, 255], { dtype: 'uint8' })
    const results = [
      add(whole, 1),
      mul(whole, 2),
      sub(bytes, 5),
      add(bytes, 10),
      div(whole, 2),
      mul(bytes, 0.5),
      add(whole, bytes),
      maximum(bytes, 200),
    ]
    expect(results.map((t) => t.dtype)).toEqual([
      'int32',
      'int32',
      'uint8',
      'uint8',
      'float32',
      'float32',
      'int32',
      'uint8',
    ])
    expect((await readAll(results)).map((a) => [...a])).toEqual([
      [8, -6, -(2 ** 31)],
      [14, -14, -2],
      [254, 245, 250],
      [13, 4, 9],
      [3.5, -3.5, 2 ** 30],
      [1.5, 125, 127.5],
      [10, 243, -(2 ** 31) + 254],
      [200, 250, 255],
    ])
  })

  test('NaN stays NaN and is never equal', async () => {
    const x = tensor([Number.NaN, 1, -1])
    const results = await readAll([maximum(x, 0), minimum(x, 0), relu(x), isNaN(x), equal(x, x), clip(x, -0.5, 0.5)])
    expect(results.map((a) => [...a])).toEqual([
      [Number.NaN, 1, 0],
      [Number.NaN, 0, -1],
      [Number.NaN, 1, 0],
      [1, 0, 0],
      [0, 1, 1],
      [Number.NaN, 0.5, -0.5],
    ])
  })
})

describe('layouts', () => {
  const shapes: [Shape, Shape][] = [
    [[], []],
    [[1], [5]],
    [[0], [1]],
    [[2, 0, 3], [3]],
    [
      [3, 1],
      [1, 4],
    ],
    [
      [2, 3, 4],
      [3, 1],
    ],
    [[7, 130], [130]],
    [
      [40, 33],
      [40, 1],
    ],
  ]
  test.each(shapes)('broadcast %j with %j', async (a, b) => {
    const [x, y] = [random(a, 1), random(b, 2)]
    const shape = broadcastShapes('test', a, b)
    const spread = await readAll([broadcastTo(x, shape), broadcastTo(y, shape)])
    const z = sub(mul(x, y), y)
    expect(z.shape).toEqual(shape)
    expect([...(await z.read())]).toEqual(Array.from(spread[0], (v, i) => v * spread[1][i] - spread[1][i]))
  })

  test('transposed, reversed and cut operands', async () => {
    const x = random([70, 90], 1, 'float32')
    const y = random([90, 70], 2, 'float32')
    const z = add(
      slice(transpose(x), [
        [3, 80, 2],
        [1, 60],
      ]),
      flip(
        slice(y, [
          [3, 80, 2],
          [1, 60],
        ]),
      ),
    )
    const [a, b, got] = await readAll([x, y, z])
    let worst = 0
    for (let i = 0; i < 39; i++) {
      for (let j = 0; j < 59; j++) {
        const want = a[(1 + j) * 90 + 3 + 2 * i] + b[(3 + 2 * (38 - i)) * 70 + 1 + (58 - j)]
        worst = Math.max(worst, Math.abs(Math.fround(want) - got[i * 59 + j]))
      }
    }
    expect(worst).toBe(0)
  })

  test('have the same bits for any number of threads', async () => {
    await expectSameBits(() => {
      const x = random([300, 257], 1, 'float32')
      return [mul(exp(add(x, random([257], 2, 'float32'))), sub(transpose(random([257, 300], 3, 'float32')), 0.5))]
    })
  })
})

describe('derivatives', () => {
  const shapesOf = (c: Case): Shape[][] =>
    c.domain.length === 1
      ? [[[]], [[0]], [[1]], [[5]]]
      : [
          [[], []],
          [[0], [1]],
          [[3], [3]],
          [[2, 1], [3]],
          [
            [1, 2],
            [3, 1],
          ],
        ]

  test.each(smooth)('of %s', async (_, c) => {
    for (const shapes of shapesOf(c))
      await checkDerivatives(
        centred(c),
        shapes.map((shape, i) => random(shape, 11 + i)),
      )
  })

  test.each(smooth)('of %s: jvp is the transpose of vjp', async (_, c) => {
    const xs = operands(c, [[2, 3], [3]])
    const tangents = xs.map((x, i) => random(x.shape, 90 + i))
    const [y, pull] = vjp((...v: Tensor[]) => c.f(...v), ...xs)
    const cotangent = random(y.shape, 95)
    const along = jvp((...v: Tensor[]) => c.f(...v), xs, tangents)[1]
    const back = pull(cotangent)
    const products = back.map((g, i) => sum(mul(g, tangents[i])))
    await expectClose(
      sum(mul(along, cotangent)),
      products.reduce((a, b) => add(a, b)),
      1e-12,
    )
  })

  test('are refused where there are none', () => {
    const x = random([3], 1)
    for (const [name, c] of rows.filter(([, row]) => row.smooth === false && row.domain.length === 2)) {
      let caught: unknown
      try {
        grad((t: Tensor) => sum(mul(t, cast(c.f(t, t), 'float64'))))(x)
      } catch (error) {
        caught = error
      }
      // Truth values are not floats, so that nothing flows back through them; a quotient that is one has no slope.
      if (name === 'floorDiv') expect(caught).toMatchObject({ code: 'NO_DERIVATIVE' })
      else expect(caught).toBeUndefined()
    }
  })

  test('do not leak from the branch that was not taken', async () => {
    const x = tensor([-1, 0, 4], { dtype: 'float64' })
    const [g, h] = await readAll(
      grad((a: Tensor, b: Tensor) => sum(where(greater(x, 0), a, b)), { argnums: [0, 1] })(
        div(1, sub(x, x)),
        log(x),
      ) as unknown as Tensor[],
    )
    expect([...g]).toEqual([0, 0, 1])
    expect([...h]).toEqual([1, 1, 0])
  })

  test('of powers at 0, and of ties', async () => {
    const zero = tensor([0, 0, 0], { dtype: 'float64' })
    const b = tensor([1, 2, 3], { dtype: 'float64' })
    const [g, h] = await readAll(
      grad((x: Tensor, y: Tensor) => sum(pow(x, y)), { argnums: [0, 1] })(zero, b) as unknown as Tensor[],
    )
    expect([...g]).toEqual([1, 0, 0])
    expect([...h]).toEqual([0, 0, 0])
    const tie = grad((x: Tensor) => sum(maximum(x, full([3], 1, 'float64'))))(tensor([0, 1, 2], { dtype: 'float64' }))
    expect([...(await tie.read())]).toEqual([0, 0.5, 1])
  })
})

describe('errors', () => {
  test('name the op, the rule and what came', () => {
    expect(() => add(random([2, 3], 1), random([4], 2))).toThrow(SteepestError)
    expect(() => add(random([2, 3], 1), random([4], 2))).toThrow(/\[add\].*2.*3.*4/)
    expect(() => clip(random([2], 1), 0, 1)).not.toThrow()
    expect(() => log(tensor([1, 2], { dtype: 'int32' }))).not.toThrow()
    expect(isFloat(log(tensor([1, 2], { dtype: 'int32' })).dtype)).toBe(true)
  })
})

test.skipIf(process.env.STEEPEST_LEVEL !== undefined)('accuracy holds at every dispatch level', async () => {
  const vitest = join(root, 'node_modules/vitest/vitest.mjs')
  const args = [vitest, 'run', 'test/ops/elementwise.test.ts', '-t', 'accuracy of', '--reporter', 'json']
  for (const level of native().info().levels) {
    const { stdout } = await promisify(execFile)(process.execPath, args, {
      cwd: root,
      env: { ...process.env, STEEPEST_LEVEL: level },
      maxBuffer: 1 << 26,
    })
    const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { numPassedTests: number; success: boolean }
    expect(report).toMatchObject({ success: true, numPassedTests: rows.length })
  }
})
