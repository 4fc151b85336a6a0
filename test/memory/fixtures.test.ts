import { describe, expect, test } from 'vitest'
import type { Comparison } from '../../lib/cli/fixtures/checker.js'
import { lowRankCheckers } from '../../lib/cli/fixtures/memory-lowrank.js'
import { numbers } from './training.js'

const checked = (json: unknown): Promise<Comparison[]> => {
  const fixture = { path: 'memory', json, folder: false }
  const checker = lowRankCheckers.find((c) => c.recognizes(fixture))
  if (!checker) throw new Error('not recognized')
  return checker.check(fixture)
}
const holds = async (json: unknown) => (await checked(json)).every(({ error, bound }) => error <= bound)

const [lr, beta1, beta2, eps, wd] = [0.02, 0.8, 0.9, 1e-6, 0.1]
const rows = (x: ArrayLike<number>, m: number, n: number): number[][] =>
  Array.from({ length: m }, (_, i) => Array.from({ length: n }, (_, j) => x[i * n + j]))
const [m, n] = [3, 2]
const steps = 5
const W0 = rows(numbers(1, m * n), m, n)
const grads = Array.from({ length: steps }, (_, t) => rows(numbers(t + 2, m * n), m, n))

/** The singular vector of largest value of a [m, 2] matrix on the right, its larger element positive. */
function leading(g: number[][]): [number, number] {
  const [a, b, c] = g.reduce(([x, y, z], [p, q]) => [x + p * p, y + p * q, z + q * q], [0, 0, 0])
  const angle = 0.5 * Math.atan2(2 * b, a - c)
  const v: [number, number] = [Math.cos(angle), Math.sin(angle)]
  const large = Math.abs(v[0]) >= Math.abs(v[1]) ? v[0] : v[1]
  return large < 0 ? [-v[0], -v[1]] : v
}

interface Moments {
  m: number[]
  v: number[]
}
const bias = (t: number) => Math.sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
const direction = (s: Moments, g: readonly number[]): number[] =>
  g.map((x, i) => {
    s.m[i] = beta1 * (s.m[i] ?? 0) + (1 - beta1) * x
    s.v[i] = beta2 * (s.v[i] ?? 0) + (1 - beta2) * x * x
    return s.m[i] / (Math.sqrt(s.v[i]) + eps)
  })

/** GaLore of rank one, or Fira with its limiter, on the right side of a [3, 2] matrix. */
function projected(fira: boolean) {
  const [gap, alpha] = [2, 0.5]
  const bases: number[][][] = []
  const kept: number[] = []
  let [basis, w]: [[number, number], number[][]] = [[1, 0], structuredClone(W0)]
  const state: Moments = { m: [], v: [] }
  let before = -1
  const weights = grads.map((g, t) => {
    if (t % gap === 0) {
      basis = leading(g)
      bases.push([[basis[0]], [basis[1]]])
    }
    const low = g.map(([a, b]) => a * basis[0] + b * basis[1])
    const u = direction(state, low)
    let outside = g.map((row, i) =>
      row.map((x, j) => (fira ? ((x - alpha * low[i] * basis[j]) * Math.abs(u[i])) / (Math.abs(low[i]) + 1e-8) : 0)),
    )
    const size = Math.hypot(...outside.flat())
    const divisor = before < 0 || !fira ? 1 : Math.max(size / (before + 1e-8), 1.01) / 1.01
    before = size / divisor
    kept.push(before)
    outside = outside.map((row) => row.map((x) => x / divisor))
    w = w.map((row, i) =>
      row.map((x, j) => (x - lr * bias(t + 1) * (alpha * u[i] * basis[j] + outside[i][j])) * (1 - lr * wd)),
    )
    return w
  })
  const common = {
    ...{
      rows: m,
      cols: n,
      rank: 1,
      update_proj_gap: gap,
      lr,
      betas: [beta1, beta2],
      eps,
      weight_decay: wd,
      W0,
      grads,
      bases,
      weights,
    },
    ...{ exp_avg: state.m.map((x) => [x]), exp_avg_sq: state.v.map((x) => [x]) },
  }
  return fira
    ? { ...common, alpha, variant: 'code', level: 'column', side: 'right', kept_residual_norms: kept }
    : { ...common, scale: alpha, proj_type: 'std', states_at_refresh: 'keep', invariant_until_step: gap }
}

/** FRUGAL with one column of [3, 2], chosen anew every two steps. */
function split() {
  let w = structuredClone(W0)
  const selection: number[][] = []
  let state: Moments = { m: [], v: [] }
  const weights = grads.map((g, t) => {
    if (t % 2 === 0) {
      selection.push([(t / 2) % 2])
      state = { m: [], v: [] }
    }
    const [column] = selection[selection.length - 1]
    const age = (t % 2) + 1
    g.forEach((row, i) => {
      state.m[i] = beta1 * (state.m[i] ?? 0) + (1 - beta1) * row[column]
      state.v[i] = beta2 * (state.v[i] ?? 0) + (1 - beta2) * row[column] ** 2
    })
    w = w.map((row, i) =>
      row.map((x, j) => {
        const root = Math.sqrt(state.v[i] / (1 - beta2 ** age)) + eps
        const step = j === column ? state.m[i] / (1 - beta1 ** age) / root : 0.3 * Math.sign(g[i][j])
        return x * (1 - lr * wd) - lr * step
      }),
    )
    return w
  })
  return {
    ...{
      rows: m,
      cols: n,
      density: 0.5,
      update_gap: 2,
      lr,
      betas: [beta1, beta2],
      eps,
      weight_decay: wd,
      kind: 'columns',
      side: null,
    },
    ...{ inactive_update_rule: 'sign_sgd', inactive_lr_scale: 0.3, proj_params_lr_scale: 1, reset_statistics: true },
    ...{ W0, grads, selection, weights, exp_avg: state.m.map((x) => [x]), exp_avg_sq: state.v.map((x) => [x]) },
  }
}

/** BAdam on two numbers, each a block, in turn every second step. */
function blocks() {
  const w = [0.5, -0.25]
  const given = Array.from({ length: steps }, (_, t) => [[numbers(t + 3, 1)[0]], [numbers(t + 9, 1)[0]]])
  const active = [0, 1, 1, 0, 0]
  let state: Moments = { m: [], v: [] }
  let age = 0
  const expect: Record<string, number[][]> = {}
  active.forEach((b, t) => {
    age = t > 0 && active[t - 1] === b ? age + 1 : 1
    if (age === 1) state = { m: [0], v: [0] }
    const g = given[t][b][0]
    state.m[0] = beta1 * state.m[0] + (1 - beta1) * g
    state.v[0] = beta2 * state.v[0] + (1 - beta2) * g * g
    const root = Math.sqrt(state.v[0] / (1 - beta2 ** age)) + eps
    w[b] = w[b] * (1 - lr * wd) - (lr * state.m[0]) / (1 - beta1 ** age) / root
    expect[t + 1] = w.map((x) => [x])
  })
  return {
    name: 'BAdam (AdamW inside)',
    hyper: {
      lr,
      betas: [beta1, beta2],
      eps,
      weight_decay: wd,
      switch_block_every: 2,
      switch_mode: 'ascending',
      blocks: [['a'], ['b']],
    },
    params: [
      { shape: [1], init: [0.5], name: 'a.w' },
      { shape: [1], init: [-0.25], name: 'b.w' },
    ],
    ...{ grads: given, active_params_per_step: active.map((b) => [b]), expect },
  }
}

describe('the checkers of small spaces and blocks', () => {
  test.each([
    [
      'GaLore',
      () => ({ cases: [projected(false)] }),
      (f: { cases: { scale?: number }[] }) => (f.cases[0].scale = 0.51),
    ],
    [
      'Fira',
      () => ({ cases: [projected(true)] }),
      (f: { cases: { variant?: string }[] }) => (f.cases[0].variant = 'paper'),
    ],
    [
      'FRUGAL',
      () => ({ cases: [split()] }),
      (f: { cases: { inactive_lr_scale?: number }[] }) => (f.cases[0].inactive_lr_scale = 0.31),
    ],
    ['BAdam', blocks, (f: { expect?: Record<string, number[][]> }) => (f.expect![4][0][0] += 1e-6)],
  ])('hold for a right file of %s and not for a wrong one', async (_, make, spoil) => {
    const file = make()
    expect(await holds(structuredClone(file))).toBe(true)
    spoil(file as never)
    expect(await holds(file)).toBe(false)
  })

  test('compare projections of matrices whose singular vectors are known', async () => {
    const c = {
      ...{ proj_type: 'std', rank: 1, scale: 0.5, side: 'right', low_shape: [3, 1], singular_values: [3, 2] },
      ...{
        grad: [
          [0, 2],
          [3, 0],
          [0, 0],
        ],
        basis_canonical: [[1], [0]],
        low: [[0], [3], [0]],
        abs_low: [[0], [3], [0]],
      },
      ...{
        projector: [
          [1, 0],
          [0, 0],
        ],
        back: [
          [0, 0],
          [1.5, 0],
          [0, 0],
        ],
        captured_energy: 9 / 13,
        residual_fro: 2,
      },
    }
    expect(await holds({ cases: [c] })).toBe(true)
    expect(await holds({ cases: [{ ...c, side: 'left' }] })).toBe(false)
    expect(await holds({ cases: [{ ...c, captured_energy: 0.7 }] })).toBe(false)
  })

  test('compare bases after some rounds', async () => {
    const at = (g: number[][], projector: number[][], energy: number, values: number[]) => ({
      ...{ grad: g, side: 'right', projector, captured_energy: energy, singular_values: values },
    })
    const turn = [Math.cos(0.1), Math.sin(0.1)]
    // The old basis is the first axis; each round multiplies the tangent of its angle by 1/9.
    const now = [
      [3 * turn[0], 3 * turn[1]],
      [-turn[1], turn[0]],
    ]
    const tangents = [0, 1, 2].map((k) => Math.tan(0.1) / 9 ** k)
    const energies = tangents.map((x) => (9 + x * x) / (10 * (1 + x * x)))
    const c = {
      ...{ rows: 2, cols: 2, rank: 1, best_energy: 0.9, warm_start_energy_by_iteration: energies },
      old: at(
        [
          [2, 0],
          [0, 1],
        ],
        [
          [1, 0],
          [0, 0],
        ],
        0.8,
        [2, 1],
      ),
      new: at(
        now,
        [
          [turn[0] ** 2, turn[0] * turn[1]],
          [turn[0] * turn[1], turn[1] ** 2],
        ],
        0.9,
        [3, 1],
      ),
    }
    expect(await holds({ cases: [c] })).toBe(true)
    energies[1] += 1e-4
    expect(await holds({ cases: [c] })).toBe(false)
  })

  test('count what methods keep', async () => {
    const model = { model: 'one', hidden: 64, ff: 128, layers: 1, vocab: 100, tied: true, rank: 8 }
    const projectedParams = 4 * 64 * 64 + 3 * 64 * 128
    const right = {
      ...model,
      params_projected: projectedParams,
      galore_basis_elements: 7 * 8 * 64,
      fira_extra_scalars: 7,
    }
    expect(await holds({ models: [right] })).toBe(true)
    expect(await holds({ models: [{ ...right, fira_extra_scalars: 8 }] })).toBe(false)
    expect(await holds({ models: [{ ...right, unheard_of: 1 }] })).toBe(false)
  })

  test('refuse options that they do not know', async () => {
    const file = blocks()
    await expect(checked({ ...file, hyper: { ...file.hyper, foo: 1 } })).rejects.toThrow('foo')
    await expect(checked({ cases: [{ ...split(), kind: 'diagonals' }] })).rejects.toThrow('diagonals')
  })
})
