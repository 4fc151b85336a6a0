import { describe, expect, test } from 'vitest'
import { optimCheckers } from '../../lib/cli/fixtures/optim.js'
import type { Comparison } from '../../lib/cli/fixtures/checker.js'
import { normals, references } from './reference.js'

const checked = (json: unknown): Promise<Comparison[]> => {
  const fixture = { path: 'memory', json, folder: false }
  const checker = optimCheckers.find((c) => c.recognizes(fixture))
  if (!checker) throw new Error('not recognized')
  return checker.check(fixture)
}

const steps = 4
const shapes = [[2, 3], [], [5]]
const sizes = shapes.map((s) => s.reduce((n, d) => n * d, 1))

function adamw() {
  const init = sizes.map((n, i) => normals(i, n))
  const grads = Array.from({ length: steps }, (_, t) => sizes.map((n, i) => normals(10 * t + i, n)))
  const weights = structuredClone(init)
  const plain = sizes.map((n) => references.adamw(n, { betas: [0.8, 0.9], weightDecay: 0.2 }))
  grads.forEach((g, t) => g.forEach((x, i) => plain[i].step(weights[i], x, 0.02, t + 1)))
  return {
    name: 'AdamW',
    hyper: { lr: 0.02, betas: [0.8, 0.9], eps: 1e-8, weight_decay: 0.2 },
    params: shapes.map((shape, i) => ({ shape, init: init[i] })),
    grads,
    expect: { [steps]: weights },
    f32: { expect_last: structuredClone(weights), max_abs_diff: 1e-7 },
  }
}

const holds = (list: Comparison[]) => list.map(({ error, bound }) => error <= bound)

describe('the checker of optimizer files', () => {
  test('holds for a right file and not for a wrong one', async () => {
    const file = adamw()
    expect(holds(await checked(file))).toEqual([true, true])
    file.hyper.weight_decay = 0.21
    expect(holds(await checked(file))).toEqual([false, false])
    file.hyper.weight_decay = 0.2
    file.expect[steps][1][0] = 'nan' as unknown as number
    expect(holds(await checked(file))).toEqual([false, true])
  })

  test('refuses options, states and optimizers that it does not know, and files that do not fit together', async () => {
    await expect(checked({ ...adamw(), hyper: { lr: 1, foo: 2 } })).rejects.toThrow('foo')
    await expect(checked({ ...adamw(), state: { 2: { bar: [] } } })).rejects.toThrow('bar')
    await expect(checked({ ...adamw(), name: 'Nobody' })).rejects.toThrow('Nobody')
    await expect(checked({ ...adamw(), expect: { 9: [] } })).rejects.toThrow('gradients')
  })

  test('compares clipped gradients and norms of any order', async () => {
    const grads = [[3, -4], [12]]
    const params = [{ shape: [2] }, { shape: [] }]
    const cube = (27 + 64 + 1728) ** (1 / 3)
    const shortened = grads.map((g) => g.map((x) => x / (cube + 1e-6)))
    const file = {
      name: 'global norm gradient clipping',
      cases: [{ max_norm: 1, norm_type: 3, params, grads, expect: { total_norm: cube, grads: shortened } }],
    }
    expect(holds(await checked(file))).toEqual([true])
    file.cases[0].expect.total_norm = 13
    expect(holds(await checked(file))).toEqual([false])
  })

  test('compares learning rates', async () => {
    const cases = [{ name: 'hf_linear_x', hyper: { base_lr: 2, warmup: 2, total: 4 }, expect: [0, 1, 2, 1, 0, 0] }]
    expect(holds(await checked({ name: 'learning-rate schedules', cases }))).toEqual([true])
    cases[0].expect[2] = 1.9
    expect(holds(await checked({ name: 'learning-rate schedules', cases }))).toEqual([false])
  })
})
