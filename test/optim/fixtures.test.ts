import { describe, expect, test } from 'vitest'
import { optimCheckers } from '../../lib/cli/fixtures/optim.js'
import type { Comparison } from '../../lib/cli/fixtures/checker.js'
import { dequantizeBlockwise, optim, readAll, tensor, type Tensor } from '../../lib/index.js'
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

describe('the checkers of eight bits', () => {
  const codes = tensor(Uint8Array.from({ length: 256 }, (_, i) => i))
  const mapOf = (signed: boolean) => dequantizeBlockwise({ codes, units: tensor([1]) }, { signed }).read()
  const hyper = { max_exponent_bits: 7, total_bits: 8 }

  test('hold for the values and not for others', async () => {
    const expected = { signed: [...(await mapOf(true))], unsigned: [...(await mapOf(false))] }
    const file = { name: '8-bit dynamic quantisation maps', hyper, expect: expected }
    expect((await checked(file)).map((c) => c.ok)).toEqual([true, true])
    file.expect.unsigned[200] = Math.fround(file.expect.unsigned[200] * (1 + 2 ** -22))
    expect((await checked(file)).map((c) => c.ok)).toEqual([true, false])
    await expect(checked({ ...file, hyper: { ...hyper, total_bits: 4 } })).rejects.toThrow('total_bits')
  })

  test('hold for the nearest codes and not for others', async () => {
    const values = await mapOf(true)
    const input = [...Float32Array.from(normals(4, 300))]
    const absmax = [0, 256].map((i) => Math.max(...input.slice(i, i + 256).map(Math.abs)))
    const scaled = input.map((x, i) => Math.fround(x / absmax[i >> 8]))
    const nearest = scaled.map((x) =>
      values.reduce((best, v, i) => (Math.abs(x - v) < Math.abs(x - values[best]) ? i : best), 0),
    )
    const dequant = nearest.map((c, i) => Math.fround(values[c] * absmax[i >> 8]))
    const file = {
      name: 'blockwise 8-bit quantise/dequantise',
      cases: [
        { blocksize: 256, signed: true, input, expect: { codes: nearest, absmax, dequant }, near_tie_positions: [7] },
      ],
    }
    expect((await checked(file)).map((c) => c.ok ?? c.error <= c.bound)).toEqual([true, true, true])
    nearest[7]++
    expect((await checked(file)).map((c) => c.ok ?? c.error <= c.bound)).toEqual([true, true, true])
    nearest[8]++
    expect((await checked(file)).map((c) => c.ok ?? c.error <= c.bound)).toEqual([false, true, true])
    file.cases[0].blocksize = 64
    await expect(checked(file)).rejects.toThrow('blocksize')
  })

  test('hold for a run with rounded states and not for one of another optimizer', async () => {
    const init = normals(1, 500)
    const grads = [1, 2, 3].map((t) => [normals(t, 500)])
    const optimizer = optim.adamw({ lr: 0.01, states: '8bit', min8bitSize: 0 })
    const params = [tensor(Float32Array.from(init))]
    let at: { params: Tensor[]; state: optim.OptimizerState } = { params, state: optimizer.init(params) }
    for (const [g] of grads) at = optimizer.update(at.params, [tensor(Float32Array.from(g))], at.state)
    const { m, mUnits } = at.state.slots
    const [weights, codes1, absmax1] = (await readAll([at.params[0], m[0], mUnits[0]])).map((x) => [[...x]])
    const file = {
      name: '8-bit blockwise AdamW',
      hyper: { lr: 0.01, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, blocksize: 256 },
      params: [{ shape: [500], init }],
      grads,
      expect: { 3: weights },
      state: { 3: { codes1, absmax1 } },
    }
    expect(holds(await checked(file))).toEqual([true, true, true])
    expect(holds(await checked({ ...file, hyper: { ...file.hyper, betas: [0.5, 0.999] } }))).toEqual([
      false,
      false,
      false,
    ])
    await expect(checked({ ...file, state: { 3: { codes3: codes1 } } })).rejects.toThrow('codes3')
  })
})
