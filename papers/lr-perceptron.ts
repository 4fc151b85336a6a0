import { type study, type Tensor, compile, matmul, random, scan, sigmoid, tensor, where, whileLoop } from 'steepest'
import { logSlope, normals } from './support/numbers.js'

export const claim: study.Claim = {
  title: 'From Logistic Regression to the Perceptron Algorithm: Exploring Gradient Descent with Large Step Sizes',
  by: 'Tyurin, AAAI 2025',
  source: 'arXiv 2412.08424',
  says:
    'Gradient descent on separable logistic regression becomes the batch perceptron as the step grows: larger steps pay with a higher loss on ' +
    'the way and separate the data sooner, though n times later than the perceptron may need; dividing by the mean weight removes that factor.',
  criteria: [
    {
      number: 'trajectory',
      what: 'distance to the batch perceptron at step 1e9, relative',
      atMost: 1e-6,
      over: 'every',
    },
    {
      number: 'shrink',
      what: 'iterations at ten times the step, over those before, steps 1 to 1000',
      atMost: 0.5,
      over: 'every',
    },
    {
      number: 'lossRatio',
      what: 'highest loss on the way at step 1e4 over that at 1, hard set',
      atLeast: 10,
      over: 'every',
    },
    { number: 'timeRatio', what: 'iterations at step 1e4 over those at 1, hard set', atMost: 0.1, over: 'every' },
    { number: 'slope', what: 'growth of iterations with n, log-log, gradient descent', atLeast: 0.9, over: 'every' },
    { number: 'slopeNormalized', what: 'growth of iterations with n, log-log, normalized', atMost: 0.2, over: 'every' },
    { number: 'solved', what: 'share of the methods that separate', atLeast: 1, over: 'every' },
  ],
  notShown:
    'That the bounds are tight; and, for tiny n, that the normalized step is the better one: it is not (n = 10).',
  found:
    'At step 1e7, two of six seeds have an example that comes within 1/step of the plane and then follow another path than the perceptron, ' +
    'whose weights are a limit; at 1e9 none of ten does. Rows are scaled to norm about 1: with N(0, I) the first steps are 50 times as long. One wrong label is no control: in one of three seeds the data stay separable (500 examples, 50 axes).',
}

type Method = 'gradient' | 'normalized' | 'perceptron'
interface Data {
  /** Rows yᵢ·aᵢ, float64 [n, d]. */
  rows: Tensor
  n: number
  d: number
}

/** The direction that a method adds to θ, times its step. */
function direction(method: Method, { rows, n }: Data, theta: Tensor, step: number): Tensor {
  const margins = matmul(rows, theta)
  const weights =
    method === 'perceptron'
      ? where(margins.less(0), 1, where(margins.equal(0), 0.5, 0)).cast('float64')
      : sigmoid(margins.neg())
  const sum = matmul(weights, rows)
  return sum.mul(step).div(method === 'normalized' ? weights.sum() : n)
}

/** Iterations until no example is on the wrong side (NaN after `limit`), and the highest loss on the way. */
async function separate(
  method: Method,
  data: Data,
  step: number,
  limit: number,
): Promise<{ iterations: number; loss: number }> {
  const wrong = (theta: Tensor) => matmul(data.rows, theta).lessEqual(0).sum({ dtype: 'float64' })
  const lossAt = (theta: Tensor) => matmul(data.rows, theta).neg().softplus().mean()
  const run = compile((start: Tensor) => {
    const zero = start.sum()
    return whileLoop(
      ({ theta, t }) => wrong(theta).greater(0).logicalAnd(t.less(limit)),
      ({ theta, t, loss }) => {
        const next = theta.add(direction(method, data, theta, step))
        return { theta: next, t: t.add(1), loss: loss.maximum(lossAt(next)) }
      },
      { theta: start, t: zero, loss: zero },
    )
  })
  const { theta, t, loss } = run(tensor(new Float64Array(data.d)))
  const done = (await wrong(theta).item()) === 0
  return { iterations: done ? await t.item() : Number.NaN, loss: await loss.item() }
}

/** Gaussian points of norm about 1 that a random plane through 0 separates, none closer to it than 0.02; with `contradicted`, the first has a twin of the other label. */
async function gaussian(seed: number, n: number, d: number, contradicted = false): Promise<Data> {
  const [points, plane] = [await normals(seed, [n, d], 'float64'), await normals(seed + 1000, [d], 'float64')]
  const length = Math.hypot(...plane)
  for (let i = 0; i < n; i++) {
    const row = points.subarray(i * d, (i + 1) * d).map((v) => v / Math.sqrt(d))
    const margin = row.reduce((s, v, j) => s + (v * plane[j]) / length, 0)
    const sign = margin < 0 ? -1 : 1
    const push = Math.max(0, 0.02 - Math.abs(margin))
    row.forEach((v, j) => (points[i * d + j] = sign * (v + (sign * push * plane[j]) / length)))
  }
  if (contradicted) for (let j = 0; j < d; j++) points[(n - 1) * d + j] = -points[j]
  return { rows: tensor(points, { shape: [n, d] }), n, d }
}

/** n − 1 times (1, 0), and one point nearly opposite: the perceptron has to make it count. The seed moves its angle a little. */
async function hard(seed: number, n: number): Promise<Data> {
  const [wobble] = await random.uniform(random.key(seed), [1], { min: -0.01, max: 0.01 }).read()
  const angle = Math.atan2(0.312, -0.95) + wobble
  const rows = Float64Array.from({ length: 2 * n }, (_, i) =>
    i < 2 * (n - 1) ? 1 - (i % 2) : i % 2 === 0 ? Math.cos(angle) : Math.sin(angle),
  )
  return { rows: tensor(rows, { shape: [n, 2] }), n, d: 2 }
}

/** The largest distance between θ over its step and the perceptron's, over the norm of the latter, in the first 60 steps. */
async function trajectoryError(data: Data): Promise<number> {
  const path = (method: Method, step: number) =>
    compile(() =>
      scan(
        (theta: Tensor) => {
          const next = theta.add(direction(method, data, theta, step))
          return { carry: next, y: next.div(step) }
        },
        tensor(new Float64Array(data.d)),
        null as never,
        { length: 60 },
      ),
    )().ys
  const [a, b] = [path('gradient', 1e9), path('perceptron', 1)]
  const away = a
    .sub(b)
    .square()
    .sum({ axis: 1 })
    .div(b.square().sum({ axis: 1 }))
  return Math.sqrt(await away.max().item())
}

async function iterationsByN(method: Method, seed: number, sizes: readonly number[]): Promise<study.CurvePoint[]> {
  const points: study.CurvePoint[] = []
  for (const n of sizes) points.push({ x: n, y: (await separate(method, await hard(seed, n), 1e4, 1e5)).iterations })
  return points
}

export async function experiment({ seed, pick }: study.Trial): Promise<study.Outcome> {
  const data = await gaussian(seed, pick(500, 60), pick(50, 6))
  const iterations: number[] = []
  for (const step of [1, 10, 100, 1000]) iterations.push((await separate('gradient', data, step, 1e5)).iterations)
  const sizes = pick([10, 100, 1000], [10, 30])
  const near = await hard(seed, pick(100, 20))
  const [small, large] = [await separate('gradient', near, 1, 1e5), await separate('gradient', near, 1e4, 1e5)]
  const [plain, normalized] = [
    await iterationsByN('gradient', seed, sizes),
    await iterationsByN('normalized', seed, sizes),
  ]
  const others = [await separate('perceptron', data, 1, 1e4), await separate('normalized', data, 1e4, 1e4)]
  const all = [...iterations, ...others.map((o) => o.iterations)]
  return {
    numbers: {
      trajectory: await trajectoryError(data),
      shrink: Math.max(...iterations.slice(1).map((v, i) => v / iterations[i])),
      lossRatio: large.loss / small.loss,
      timeRatio: large.iterations / small.iterations,
      slope: logSlope(plain),
      slopeNormalized: logSlope(normalized),
      solved: all.filter(Number.isFinite).length / all.length,
    },
    curves: { 'gradient descent': plain, normalized },
  }
}

export const control: readonly study.Control[] = [
  {
    what: 'one example of the Gaussian data has a twin with the other label, so that nothing separates them',
    fails: ['solved'],
    async experiment({ seed, pick }) {
      const data = await gaussian(seed, pick(500, 60), pick(50, 6), true)
      const tries = [await separate('gradient', data, 100, 5000), await separate('perceptron', data, 1, 5000)]
      tries.push(await separate('normalized', data, 1e4, 5000))
      return { numbers: { solved: tries.some((t) => Number.isFinite(t.iterations)) ? 1 : 0 } }
    },
  },
  {
    what: 'the normalized step without its divisor',
    fails: ['slopeNormalized'],
    async experiment({ seed, pick }) {
      return {
        numbers: { slopeNormalized: logSlope(await iterationsByN('gradient', seed, pick([10, 100, 1000], [10, 30]))) },
      }
    },
  },
]

export const plot: study.Plot = { x: 'examples', y: 'iterations until separated, step 1e4', logX: true, logY: true }
