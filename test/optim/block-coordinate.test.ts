import { describe, expect, test } from 'vitest'
import { compile, matmul, mul, optim, square, sub, sum, tensor, type Tensor } from '../../lib/index.js'
import { normals, worst } from './reference.js'

const [m, n] = [40, 24]
const scales = normals(5, n).map(Math.exp)
const A = normals(1, m * n).map((v, i) => (Math.sin(i * 12.9898) > 0.2 ? v : 0) * scales[i % n])
const target = normals(2, m)
const at = (i: number, j: number) => A[i * n + j]
const H = Array.from({ length: n }, (_, i) =>
  Array.from({ length: n }, (_, j) => {
    let s = 0
    for (let k = 0; k < m; k++) s += at(k, i) * at(k, j)
    return s
  }),
)
const L = H.map((row, i) => row[i])
const T = tensor(Float64Array.from(A), { shape: [m, n] })
const Y = tensor(Float64Array.from(target), { shape: [m, 1] })
type Params = { x: Tensor }
const loss = ({ x }: Params) => mul(sum(square(sub(matmul(T, x), Y))), 0.5)
const begin = (): Params => ({ x: tensor(new Float64Array(n), { shape: [n, 1] }) })

async function drive(options: optim.BlockCoordinateOptions, steps: number) {
  const opt = optim.blockCoordinate(options)
  let params = begin()
  let state = opt.init(params)
  const step = compile((p: Params, s: optim.OptimizerState) => {
    const next = opt.step!(optim.objective(loss), p, s)
    return { params: next.params, state: next.state, loss: next.loss }
  })
  const losses: number[] = []
  for (let t = 0; t < steps; t++) {
    const next = step(params, state)
    losses.push(await next.loss.item())
    ;({ params, state } = next)
  }
  losses.push(await loss(params).item())
  return { losses, x: [...(await params.x.read())] }
}

/** The gradient at x, by loops. */
const gradient = (x: number[]): number[] => {
  const r = target.map((y, k) => x.reduce((s, v, j) => s + at(k, j) * v, -y))
  return x.map((_, j) => r.reduce((s, v, k) => s + at(k, j) * v, 0))
}
/** Gaussian elimination. */
function eliminate(a: number[][], b: number[]): number[] {
  const rows = a.map((row, i) => [...row, b[i]])
  rows.forEach((row, i) => {
    for (let k = i + 1; k < rows.length; k++) {
      const f = rows[k][i] / row[i]
      for (let j = i; j <= rows.length; j++) rows[k][j] -= f * row[j]
    }
  })
  const x = new Array<number>(b.length).fill(0)
  for (let i = b.length - 1; i >= 0; i--)
    x[i] =
      (rows[i][b.length] - rows[i].slice(i + 1, b.length).reduce((s, v, j) => s + v * x[i + 1 + j], 0)) / rows[i][i]
  return x
}
const top = (scores: number[], k: number) =>
  scores
    .map((s, i) => [s, i])
    .sort((a, b) => b[0] - a[0] || a[1] - b[1])
    .slice(0, k)
    .map(([, i]) => i)

describe('block coordinate descent', () => {
  test.each(['gs', 'gsl', 'gsd'] as const)('%s with the matrix update is what loops do', async (rule) => {
    const x = new Array<number>(n).fill(0)
    const bound = H.map((row) => row.reduce((s, v) => s + Math.abs(v), 0))
    for (let t = 0; t < 6; t++) {
      const g = gradient(x)
      const divisor = rule === 'gs' ? L.map(() => 1) : rule === 'gsl' ? L : bound
      const block = top(
        g.map((v, i) => (v * v) / divisor[i]),
        4,
      )
      const d = eliminate(
        block.map((i) => block.map((j) => H[i][j])),
        block.map((i) => -g[i]),
      )
      block.forEach((i, k) => (x[i] += d[k]))
    }
    const got = await drive({ rule, blockSize: 4, update: 'matrix', hessian: H, diagonal: 'rowSums' }, 6)
    expect(worst(got.x, x)).toBeLessThan(1e-6)
  })

  const rules = ['random', 'cyclic', 'lipschitz', 'gs', 'gsl', 'gsd', 'gsq'] as const
  const ways = rules.flatMap((rule) =>
    (['variable', 'fixed'] as const).flatMap((blocks) =>
      (['lipschitz', 'matrix', 'newton'] as const).map((update) => ({ rule, blocks, update })),
    ),
  )
  test.each(ways)('$rule of $blocks blocks by $update never goes up, and gets down', async (way) => {
    for (const partition of way.blocks === 'fixed' ? (['order', 'average', 'sorted'] as const) : (['order'] as const)) {
      const { losses } = await drive({ ...way, partition, blockSize: 5, hessian: H }, 25)
      for (let t = 1; t < losses.length; t++) expect(losses[t]).toBeLessThanOrEqual(losses[t - 1] * (1 + 1e-12))
      expect(losses.at(-1)).toBeLessThan(losses[0])
    }
  })

  test('greedy is better than random, bounds make it better, and so does the Hessian', async () => {
    const best = (await drive({ blockSize: n, update: 'matrix', hessian: H }, 1)).losses.at(-1)!
    const gap = async (o: optim.BlockCoordinateOptions) =>
      (await drive({ blockSize: 3, hessian: H, ...o }, 60)).losses.at(-1)! - best
    const [random, gs, gsd, matrix] = [
      await gap({ rule: 'random' }),
      await gap({ rule: 'gs' }),
      await gap({ rule: 'gsd' }),
      await gap({ rule: 'gsd', update: 'matrix' }),
    ]
    expect(gs).toBeLessThan(random)
    expect(gsd).toBeLessThan(gs)
    expect(matrix).toBeLessThan(gsd)
  })

  test('finds the support of an L1 penalty, and keeps within bounds', async () => {
    const l1 = 0.3 * Math.max(...gradient(new Array<number>(n).fill(0)).map(Math.abs))
    const { x } = await drive({ rule: 'gsq', lipschitz: L, l1 }, 400)
    const g = gradient(x)
    x.forEach((v, i) => {
      if (v === 0) expect(Math.abs(g[i])).toBeLessThan(l1 * (1 + 1e-6))
      else expect(Math.abs(g[i] + Math.sign(v) * l1)).toBeLessThan(1e-5 * l1)
    })
    const zeros = x.filter((v) => v === 0).length
    expect(zeros).toBeGreaterThan(3)
    expect(zeros).toBeLessThan(n)
    const kept = await drive({ rule: 'gsq', lipschitz: L, bounds: [0, 0.1] }, 300)
    const slope = gradient(kept.x)
    kept.x.forEach((v, i) => {
      expect(v >= 0 && v <= 0.1).toBe(true)
      if (v === 0) expect(slope[i]).toBeGreaterThan(-1e-6)
      else if (v < 0.1) expect(Math.abs(slope[i])).toBeLessThan(1e-4)
    })
  })

  test('takes blocks of one’s own, and says what does not fit', async () => {
    const blocks = [[0, 1, 2], [5], Array.from({ length: 20 }, (_, i) => i + 4)]
    const { x, losses } = await drive({ blocks, rule: 'cyclic', update: 'matrix', hessian: H }, 3)
    expect(x[3]).toBe(0)
    expect(losses[3]).toBeLessThan(losses[0])
    expect(() => optim.blockCoordinate({ update: 'matrix' })).toThrow('needs a `hessian`')
    expect(() => optim.blockCoordinate({ l1: 1, update: 'newton' })).toThrow('lipschitz')
    expect(() => optim.blockCoordinate({ rule: 'best' as 'gs' })).toThrow('`rule`')
    expect(() => optim.blockCoordinate({ lipschitz: [1, 2] }).init(begin())).toThrow('24 coordinates')
    expect(() => optim.blockCoordinate({ blocks: [[99]] }).init(begin())).toThrow('[0, 24)')
  })
})

describe('forests', () => {
  /** A tree with a branch here and there. */
  const tree = (size: number): optim.SparseSymmetric => {
    const neighbours: [number, number][][] = Array.from({ length: size }, () => [])
    for (let i = 1; i < size; i++) {
      const p = i % 3 === 0 ? Math.floor(i / 2) : i - 1
      const v = Math.sin(i)
      neighbours[i].push([p, v])
      neighbours[p].push([i, v])
    }
    return { diagonal: neighbours.map((row) => 1 + row.reduce((s, [, v]) => s + Math.abs(v), 0)), neighbours }
  }

  test('are solved in linear time', () => {
    const times = [20_000, 40_000].map((size) => {
      const a = tree(size)
      const b = normals(3, size)
      let best = Infinity
      for (let k = 0; k < 3; k++) {
        const begun = performance.now()
        const x = optim.solveForest(a, b)
        best = Math.min(best, performance.now() - begun)
        const back = x.map((v, i) => a.diagonal[i] * v + a.neighbours[i].reduce((s, [j, w]) => s + w * x[j], 0))
        expect(worst(back, b)).toBeLessThan(1e-12)
      }
      return best
    })
    expect(times[1]).toBeLessThan(10 * times[0])
  })

  test('a block of one is what no cycle is in; a cycle is an error', () => {
    const ring = {
      diagonal: [3, 3, 3, 3],
      neighbours: [0, 1, 2, 3].map(
        (i) =>
          [
            [(i + 1) % 4, 1],
            [(i + 3) % 4, 1],
          ] as [number, number][],
      ),
    }
    expect(() => optim.solveForest(ring, [1, 1, 1, 1])).toThrow('no cycle')
    const block = optim.forestBlock([4, 3, 2, 1], ring.neighbours)
    expect(block).toEqual([0, 1, 2])
    const x = optim.solveForest(ring, [1, 2, 3, 4], block)
    const full = [0, 1, 2].map((i) => [0, 1, 2].map((j) => (i === j ? 3 : Math.abs(i - j) === 1 ? 1 : 0)))
    expect(worst([...x.slice(0, 3)], eliminate(full, [1, 2, 3]))).toBeLessThan(1e-14)
    expect(x[3]).toBe(0)
  })
})
