import { compile, optim, scan, solve, study, type Tensor, tensor } from 'steepest'
import { conjugate, lossOf, type Squares, squares, tree } from './support/quadratics.js'

export const claim: study.Claim = {
  title: "Let's Make Block Coordinate Descent Converge Faster",
  by: 'Nutini, Laradji, Schmidt 2017',
  source: 'arXiv 1712.08859',
  says:
    'Choosing the block by what it promises is far ahead of random choice, more so when gradients are weighed by curvature and the block moves by ' +
    'the inverse of its part of the Hessian; with an L1 penalty the support is found in few steps; blocks without cycles are solved in linear time.',
  criteria: [
    { number: 'greedy', what: 'gap of the largest gradients over that of random blocks', atMost: 0.2, over: 'every' },
    {
      number: 'weighed',
      what: 'gap with gradients weighed by curvature, over that without',
      atMost: 0.2,
      over: 'every',
    },
    {
      number: 'matrix',
      what: 'gap with the inverse of the block of the Hessian, over that without',
      atMost: 1 / 3,
      over: 'every',
    },
    { number: 'support', what: 'steps of one coordinate until the support is final, L1', atMost: 30, over: 'every' },
    { number: 'residual', what: 'optimality after one Newton step on that support', atMost: 1e-8, over: 'every' },
    {
      number: 'randomSupport',
      what: 'steps of random choice until the support is final, over those',
      atLeast: 5,
      over: 'every',
    },
    {
      number: 'tree',
      what: 'distance of the solution of a tree of 20,000 from conjugate gradients',
      atMost: 1e-8,
      over: 'every',
    },
    {
      number: 'linear',
      what: 'time of the processor for a tree of 40,000 over that for 20,000',
      atMost: 3,
      over: 'median',
    },
  ],
  notShown: 'The data sets of the paper, logistic regression, and rules that are worth their cost in time.',
}

const STEPS = 400

/** Positions after each step, [steps, n]. */
function path(problem: Squares, options: optim.BlockCoordinateOptions, steps: number, seed: number): Tensor {
  const optimizer = optim.blockCoordinate({ ...options, hessian: problem.hessian, seed })
  return compile(
    (x0: Tensor) =>
      scan(
        ({ p, state }) => {
          const next = optimizer.step!(optim.objective(lossOf(problem)), p, state)
          return { carry: { p: next.params, state: next.state }, y: next.params.x }
        },
        { p: { x: x0 }, state: optimizer.init({ x: x0 }) },
        null as never,
        { length: steps },
      ).ys as Tensor,
  )(tensor(new Float64Array(problem.n)))
}

/** (f − f*) / (f₀ − f*) along a path. */
async function gaps(
  problem: Squares,
  options: optim.BlockCoordinateOptions,
  steps: number,
  seed: number,
): Promise<number[]> {
  const xs = path(problem, { blockSize: 5, ...options }, steps, seed)
  const residual = (x: Tensor) => x.matmul(problem.a.transpose()).sub(problem.b).square().sum({ axis: -1 }).mul(0.5)
  const { a, b, n } = problem
  const best = solve(a.transpose().matmul(a).add(diagonal(n, 1e-10)), b.matmul(a))
  const [least, first] = [await residual(best).item(), await residual(best.mul(0)).item()]
  return Array.from(await residual(xs).read(), (f) => (Number(f) - least) / (first - least))
}
const diagonal = (n: number, value: number): Tensor =>
  tensor(
    Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? value : 0)),
    { shape: [n, n] },
  )

/** Steps until the support does not change any more, and the support. */
async function supportOf(problem: Squares, rule: 'gs' | 'random', l1: number, steps: number, seed: number) {
  const xs = await path(problem, { rule, blockSize: 1, l1 }, steps, seed).read()
  const at = (t: number) => Array.from({ length: problem.n }, (_, i) => i).filter((i) => xs[t * problem.n + i] !== 0)
  const last = at(steps - 1)
  let t = steps - 1
  while (t > 0 && at(t - 1).join() === last.join()) t--
  return { steps: t + 1, support: last, x: Array.from(xs.slice((steps - 1) * problem.n), Number) }
}

/** How far the solution on a support is from being optimal for f + λ|x|₁. */
async function residualOn(
  { a, b, n, hessian }: Squares,
  support: readonly number[],
  x: readonly number[],
  l1: number,
): Promise<number> {
  const slopes = Array.from(await b.matmul(a).read(), Number)
  const signs = support.map((i) => Math.sign(x[i]))
  const block = tensor(
    support.map((i) => support.map((j) => hessian[i * n + j])),
    { dtype: 'float64' },
  )
  const right = tensor(Float64Array.from(support, (i, k) => slopes[i] - l1 * signs[k]))
  const values = Array.from(await solve(block, right).read(), Number)
  let worst = 0
  for (let i = 0; i < n; i++) {
    const g = support.reduce((s, j, k) => s + hessian[i * n + j] * values[k], 0) - slopes[i]
    const k = support.indexOf(i)
    worst = Math.max(worst, k >= 0 ? Math.abs(g + l1 * signs[k]) : Math.max(0, Math.abs(g) - l1))
  }
  return worst
}

async function forests(seed: number, n: number): Promise<{ tree: number; linear: number }> {
  const [small, large] = [await tree(seed, n), await tree(seed + 1, 2 * n)]
  const timed = ({ matrix, right }: typeof small) => {
    const began = process.cpuUsage()
    for (let i = 0; i < 3; i++) optim.solveForest(matrix, right)
    return process.cpuUsage(began).user
  }
  timed(large)
  // One right after the other, so that both have the same of a machine on which others are at work.
  const ratios = Array.from({ length: 21 }, () => timed(large) / Math.max(1, timed(small)))
  const [x, other] = [optim.solveForest(small.matrix, small.right), conjugate(small.matrix, small.right)]
  return { tree: Math.max(...x.map((v, i) => Math.abs(v - other[i]))), linear: study.summarize(ratios).median }
}

const curveOf = (values: readonly number[]): study.CurvePoint[] =>
  values.flatMap((y, i) => (i % 10 === 9 ? [{ x: i + 1, y }] : []))

async function measured({ seed, pick }: study.Trial, greedy: 'gs' | 'random', weighed: 'gsd' | 'random') {
  const problem = await squares(seed, pick(400, 40), pick(300, 20), 0.1, pick(90, 6), true)
  const run = (options: optim.BlockCoordinateOptions) => gaps(problem, options, pick(STEPS, 20), seed)
  const [random0, gs, gsd] = [await run({ rule: 'random' }), await run({ rule: greedy }), await run({ rule: weighed })]
  const matrix = await run({ rule: weighed, update: 'matrix' })
  const last = (list: readonly number[]) => list[list.length - 1]
  return {
    numbers: { greedy: last(gs) / last(random0), weighed: last(gsd) / last(gs), matrix: last(matrix) / last(gsd) },
    curves: {
      random: curveOf(random0),
      'largest gradients': curveOf(gs),
      'weighed by curvature': curveOf(gsd),
      'and by the inverse': curveOf(matrix),
    },
  }
}

export async function experiment(trial: study.Trial): Promise<study.Outcome> {
  const { seed, pick } = trial
  const { numbers, curves } = await measured(trial, 'gs', 'gsd')
  const sparse = await squares(seed + 50, pick(100, 40), pick(200, 30), 1, pick(8, 3), false)
  const l1 = 0.1 * (await sparse.b.matmul(sparse.a).abs().max().item())
  const greedy = await supportOf(sparse, 'gs', l1, pick(300, 40), seed)
  const chance = await supportOf(sparse, 'random', l1, pick(4000, 40), seed)
  return {
    numbers: {
      ...numbers,
      support: greedy.steps,
      residual: await residualOn(sparse, greedy.support, greedy.x, l1),
      randomSupport: chance.steps / greedy.steps,
      ...(await forests(seed, pick(20_000, 500))),
    },
    curves,
  }
}

export const control: study.Control = {
  what: 'random blocks under the names of the greedy rules',
  fails: ['greedy', 'weighed'],
  experiment: (trial) => measured(trial, 'random', 'random'),
}

export const plot: study.Plot = {
  x: 'step',
  y: 'share of the gap that is left',
  logY: true,
  curves: ['random', 'largest gradients', 'weighed by curvature', 'and by the inverse'],
}
