import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import '../../lib/index.js'
import { ops } from '../../lib/ops/define.js'
import { root } from '../house/scan.js'
import { allCases } from './check.js'

/** Rows that have no case in `cases/`, and where they are tested. */
const elsewhere: Record<string, string> = {
  input: 'test/transform/loop.test.ts',
  update: 'test/optim/rules.test.ts',
  globalNorm: 'test/optim/rules.test.ts',
  scan: 'test/transform/loop.test.ts',
  cond: 'test/transform/loop.test.ts',
  whileLoop: 'test/transform/loop.test.ts',
  revise: 'test/transform/revise.test.ts',
  linearCrossEntropyWithGradients: 'test/graph/join-loss.test.ts',
}

/** Rows that a transform by examples never meets: states of a step, leaves, and what passes make. */
const unmapped = ['assign', 'accumulate', 'update', 'globalNorm', 'elementwise', 'iota']

describe('the table', () => {
  test('has a case for every row, in a family whose test walks it', async () => {
    const families = await allCases()
    const covered = new Set([
      ...families.flatMap(({ cases }) => cases.flatMap((c) => c.ops)),
      ...Object.keys(elsewhere),
    ])
    const rows = ops()
      .filter((op) => op.kind !== 'elementwise' && op.kind !== 'composite')
      .map((op) => op.name)
    // A row needs a case in test/ops/cases; an elementwise one in test/ops/elementwise-cases.ts, which elementwise.test.ts counts.
    expect(rows.filter((name) => !covered.has(name))).toEqual([])
    const all = ops().map((op) => op.name)
    expect([...covered].filter((name) => !all.includes(name))).toEqual([])
    for (const { family } of families) {
      const text = readFileSync(join(root, 'test/ops', `${family}.test.ts`), 'utf8')
      expect(text, family).toMatch(new RegExp(`from './cases/${family}\\.js'[^]*\\bcheckCases\\(`))
    }
    for (const path of Object.values(elsewhere)) expect(existsSync(join(root, path)), path).toBe(true)
  })

  test('says of every row what its derivative is, and how it is batched', () => {
    for (const op of ops()) {
      if (typeof op.vjp === 'string') expect(op.vjp, op.name).not.toBe('')
      expect(op.doc, op.name).not.toBe('')
    }
    const bare = ops().filter((op) => op.kind === 'kernel' && !op.batch && !op.define)
    expect(bare.map((op) => op.name).filter((name) => !unmapped.includes(name))).toEqual([])
  })
})
