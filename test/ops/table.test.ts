import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import { schedule } from '../../lib/graph/graph.js'
import { ops } from '../../lib/ops/define.js'
import { add, cast, mul } from '../../lib/ops/elementwise.js'
import '../../lib/ops/index.js'
import { sum } from '../../lib/ops/reduce.js'
import type { DType } from '../../lib/tensor/dtype.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad, jvp, vjp } from '../../lib/transform/index.js'
import { root } from '../house/scan.js'
import { checkVmap, expectClose, random } from './differences.js'
import { elsewhere, type TableCase, tableCases } from './table-cases.js'
import { expectSameBits } from './threads.js'

const all = Object.entries(tableCases)
const smooth = all.filter(([, c]) => c.smooth !== false)
const lossy = smooth.flatMap(([name, c]) =>
  (c.dtypes ?? ['float32', 'bfloat16']).map((dtype): [string, DType, TableCase] => [name, dtype, c]),
)
const inputs = (c: TableCase, dtype: DType = 'float64'): Tensor[] =>
  c.shapes.map((shape, i) => random(shape, 31 + i, dtype))
const float64 = (t: Tensor): Tensor => cast(t, 'float64')

/** A number that depends on every output of the case, and not only linearly. */
const loss =
  (c: TableCase) =>
  (...xs: Tensor[]): Tensor => {
    const y = c.f(...xs)
    const weight = cast(random(y.shape, 77), y.dtype)
    return sum(mul(y, add(mul(y, 0.5), weight)))
  }
const gradients = (c: TableCase, xs: readonly Tensor[]): Tensor[] =>
  grad(loss(c), { argnums: xs.map((_, i) => i) })(...xs) as unknown as Tensor[]

describe('the table', () => {
  test('has a case for every row', () => {
    const covered = new Set([...all.flatMap(([, c]) => c.rows), ...Object.keys(elsewhere)])
    const rows = ops()
      .filter((op) => op.kind !== 'elementwise')
      .map((op) => op.name)
    expect(rows.filter((name) => !covered.has(name))).toEqual([])
    expect([...covered].filter((name) => !rows.includes(name))).toEqual([])
  })

  test('says of every row what its derivative is, and how it is batched', () => {
    for (const op of ops()) {
      if (typeof op.vjp === 'string') expect(op.vjp, op.name).not.toBe('')
      expect(op.doc, op.name).not.toBe('')
    }
    // A state of a step, a leaf and what passes make are never mapped.
    const unmapped = ops()
      .filter((op) => op.kind === 'kernel' && !op.batch && !op.define)
      .map((op) => op.name)
    expect(
      unmapped.filter(
        (name) => !['assign', 'accumulate', 'update', 'globalNorm', 'elementwise', 'iota'].includes(name),
      ),
    ).toEqual([])
  })

  test.each(all)('%s uses its rows', (_, c) => {
    const xs = inputs(c)
    const first = c.smooth === false ? [] : gradients(c, xs)
    const second = first.length === 0 ? [] : [grad((x: Tensor) => sum(gradients(c, [x, ...xs.slice(1)])[0]))(xs[0])]
    const names = new Set(schedule([c.f(...xs), ...first, ...second]).map((node) => node.op.name))
    expect(c.rows.filter((name) => !names.has(name))).toEqual([])
  })
})

describe('every row', () => {
  test.each(smooth)('%s: jvp is the transpose of vjp', async (_, c) => {
    const xs = inputs(c)
    const tangents = xs.map((x, i) => random(x.shape, 90 + i))
    const [y, pull] = vjp((...v: Tensor[]) => c.f(...v), ...xs)
    const cotangent = random(y.shape, 95)
    const along = jvp((...v: Tensor[]) => c.f(...v), xs, tangents)[1]
    const products = pull(cotangent).map((g, i) => sum(mul(g, tangents[i])))
    await expectClose(
      sum(mul(along, cotangent)),
      products.reduce((a, b) => add(a, b)),
      1e-11,
    )
  })

  test.each(all)('%s: vmap is a loop', async (_, c) => {
    const few = inputs(c).slice(0, 2)
    const rest = inputs(c).slice(2)
    if (few.length > 0) await checkVmap((...xs) => c.f(...xs, ...rest), few, 1e-11)
    if (few.length > 0 && c.smooth !== false)
      await checkVmap((x, ...xs) => grad(loss(c))(x, ...xs, ...rest), few, 1e-10)
  })

  test.each(all)('%s: the same bits for any number of threads', async (_, c) => {
    await expectSameBits(() => {
      const xs = inputs(c, 'float32')
      return c.smooth === false ? [c.f(...xs)] : [c.f(...xs), ...gradients(c, xs)]
    })
  })

  // At the level of this process; the last test runs it at every level.
  test.each(lossy)('accuracy of %s in %s', async (_, dtype, c) => {
    const unit = dtype === 'bfloat16' ? 2 ** -8 : 2 ** -24
    const xs = inputs(c, dtype)
    const wide = xs.map(float64)
    const bound = (c.bound ?? 8) * unit
    await expectClose(float64(c.f(...xs)), c.f(...wide), bound)
    // The loss itself is taken in float64, so that only the row's own rounding counts.
    const exact = (...v: Tensor[]) => loss({ ...c, f: (...u) => float64(c.f(...u)) })(...v)
    const [got, want] = [xs, wide].map((v) => grad(exact, { argnums: v.map((_, i) => i) })(...v) as unknown as Tensor[])
    for (let i = 0; i < got.length; i++) await expectClose(float64(got[i]), want[i], bound)
  })
})

test.skipIf(process.env.STEEPEST_LEVEL !== undefined)('accuracy holds at every dispatch level', async () => {
  const vitest = join(root, 'node_modules/vitest/vitest.mjs')
  const args = [vitest, 'run', 'test/ops/table.test.ts', '-t', 'accuracy of', '--reporter', 'json']
  for (const level of native().info().levels) {
    const { stdout } = await promisify(execFile)(process.execPath, args, {
      cwd: root,
      env: { ...process.env, STEEPEST_LEVEL: level },
      maxBuffer: 1 << 26,
    })
    const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { numPassedTests: number; success: boolean }
    expect(report).toMatchObject({ success: true, numPassedTests: lossy.length })
  }
})
