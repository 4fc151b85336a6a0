import {
  compile,
  crossEntropy,
  grad,
  optim,
  random,
  scan,
  softmax,
  type study,
  type Tensor,
  tensor,
  whileLoop,
} from 'steepest'

export const claim: study.Claim = {
  title: 'Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training',
  by: 'Liu et al., ICLR 2024',
  source: 'arXiv 2305.14342',
  says:
    'Dividing the mean gradient by an estimate of the diagonal of the Hessian, and cutting every number of the step at the learning rate, needs ' +
    'steps that do not depend on how unequal the curvatures are; the estimates are unbiased and cheap.',
  criteria: [
    { number: 'sophia', what: 'steps at condition 1e5 over those at 1e2, Sophia', atMost: 2, over: 'every' },
    { number: 'gd', what: 'the same of gradient descent near its largest stable rate', atLeast: 50, over: 'every' },
    { number: 'longest', what: 'longest number of a step over the learning rate', atMost: 1 + 1e-9, over: 'every' },
    {
      number: 'gaussNewton',
      what: 'distance of the mean of 8000 Gauss–Newton–Bartlett estimates from the diagonal, relative',
      atMost: 0.05,
      over: 'every',
    },
    { number: 'hutchinson', what: 'the same of Hutchinson’s', atMost: 0.05, over: 'every' },
  ],
  reports: {
    sophia2: 'steps of Sophia at condition 1e2',
    sophia5: 'steps of Sophia at condition 1e5',
    adam: 'growth of the steps of Adam, each at its best rate',
  },
  notShown:
    'That GPT-2 learns in half the steps of AdamW, which is the headline: language models of that size do not train on a laptop.',
  found: 'Conditions end at 1e5: at 1e6 gradient descent takes some four million steps, and shows nothing more.',
}

const DIM = 20
const CONDITIONS = [1e2, 1e3, 1e4, 1e5]
const TARGET = 1e-6

/** Σ cᵢ b(xᵢ), b(x) = x²/2 + 0.15 (1 − cos 3x), which is not convex around 1; curvatures from 100/condition to 100. */
function toy(condition: number): (x: Tensor) => Tensor {
  const c = tensor(Float64Array.from({ length: DIM }, (_, i) => 100 * condition ** (i / (DIM - 1) - 1)))
  return (x) => x.square().div(2).add(x.mul(3).cos().neg().add(1).mul(0.15)).mul(c).sum()
}

const start = (seed: number) => random.uniform(random.key(seed), [DIM], { min: 1.5, max: 2, dtype: 'float64' })

/** A step of any optimizer on a function. */
function stepOf(optimizer: optim.Optimizer, f: (x: Tensor) => Tensor, p: { x: Tensor }, state: optim.OptimizerState) {
  const loss = (at: typeof p) => f(at.x)
  return optimizer.step ? optimizer.step(optim.objective(loss), p, state) : optimizer.update(p, grad(loss)(p), state)
}

/** Steps until the function is below the target; infinite where it is not within `limit`. */
async function stepsOf(
  optimizer: optim.Optimizer,
  f: (x: Tensor) => Tensor,
  seed: number,
  limit: number,
): Promise<number> {
  const { x, t } = compile((x0: Tensor) =>
    whileLoop(
      ({ x, t }) => f(x).greater(TARGET).logicalAnd(t.less(limit)),
      ({ x, state, t }) => {
        const next = stepOf(optimizer, f, { x }, state)
        return { x: next.params.x, state: next.state, t: t.add(1) }
      },
      { x: x0, state: optimizer.init({ x: x0 }), t: x0.sum().mul(0) },
    ),
  )(start(seed))
  return (await f(x).item()) <= TARGET ? await t.item() : Infinity
}

/** Newton's diagonal: for a sum over the coordinates, the Hessian times ones. */
const exact = optim.hutchinson({ draw: ({ shape }) => tensor(new Float64Array(shape[0]).fill(1)) })
const constant: optim.Curvature = {
  name: 'constant',
  estimate: ({ moved }) => Object.fromEntries(moved.map(({ name, p }) => [name, p.mul(0).add(1)])),
}
const sophia = (curvature: optim.Curvature) =>
  optim.sophiaH({ lr: 0.3, gamma: 1, every: 1, betas: [0, 0], weightDecay: 0, curvature })

const fewest = async (
  make: (lr: number) => optim.Optimizer,
  rates: readonly number[],
  condition: number,
  seed: number,
  limit: number,
) => Math.min(...(await Promise.all(rates.map((lr) => stepsOf(make(lr), toy(condition), seed, limit)))))

/** The longest number of 200 steps, over the rate. */
async function longest(seed: number): Promise<number> {
  const [optimizer, f] = [sophia(exact), toy(1e4)]
  const moves = compile(
    (x0: Tensor) =>
      scan(
        ({ p, state }) => {
          const next = stepOf(optimizer, f, p, state)
          return { carry: { p: next.params, state: next.state }, y: next.params.x.sub(p.x) }
        },
        { p: { x: x0 }, state: optimizer.init({ x: x0 }) },
        null as never,
        { length: 200 },
      ).ys,
  )(start(seed))
  return (await moves.abs().max().item()) / 0.3
}

/** How far the mean of many estimates is from the diagonal of the Hessian of a linear softmax model, where Gauss–Newton's is the same. */
async function bias(curvature: optim.Curvature, seed: number, draws: number): Promise<number> {
  const draw = (i: number, shape: number[]) =>
    random.normal(random.foldIn(random.key(seed), i), shape, { dtype: 'float64' })
  const [x, w] = [draw(0, [64, 5]), draw(1, [5, 3])]
  const labels = random.integers(random.key(seed), [64], 0, 3)
  const outputs = (p: { w: Tensor }): optim.Outputs => {
    const logits = x.matmul(p.w)
    return { loss: crossEntropy(logits, labels), logits }
  }
  const total = compile(
    (w0: Tensor) =>
      scan(
        (sum: Tensor, n: Tensor) => {
          const key = random.foldIn(random.key(seed), n)
          const params = { w: w0 }
          const objective = optim.objective(outputs as never, key) as optim.Objective<unknown>
          const moved = [{ name: 'w', p: w0, site: 0 }]
          const estimate = curvature.estimate({ objective, params, moved, key, t: n.cast('float64') })
          return { carry: sum.add(estimate.w), y: null }
        },
        w0.mul(0),
        tensor(Int32Array.from({ length: draws }, (_, i) => i)),
      ).carry,
  )(w)
  const p = softmax(x.matmul(w))
  const diagonal = x
    .square()
    .transpose()
    .matmul(p.mul(p.neg().add(1)))
    .div(64)
  const away = total.div(draws).sub(diagonal)
  return await away.square().sum().div(diagonal.square().sum()).sqrt().item()
}

export async function experiment({ seed, pick }: study.Trial): Promise<study.Outcome> {
  const limit = pick(1e6, 50)
  const conditions = pick(CONDITIONS, [10, 100])
  const ours: study.CurvePoint[] = []
  const theirs: study.CurvePoint[] = []
  for (const x of conditions) {
    ours.push({ x, y: await stepsOf(sophia(exact), toy(x), seed, limit) })
    theirs.push({ x, y: await stepsOf(optim.sgd({ lr: 0.008 }), toy(x), seed, limit) })
  }
  const growth = (points: study.CurvePoint[]) => points[points.length - 1].y / points[0].y
  const ends = async (make: (lr: number) => optim.Optimizer, rates: number[]) => {
    const at = (condition: number) => fewest(make, rates, condition, seed, pick(3e4, 50))
    return (await at(conditions[conditions.length - 1])) / (await at(conditions[0]))
  }
  const draws = pick(8000, 20)
  return {
    numbers: {
      sophia: growth(ours),
      gd: growth(theirs),
      longest: await longest(seed),
      gaussNewton: await bias(optim.gaussNewton(), seed, draws),
      hutchinson: await bias(optim.hutchinson(), seed, draws),
      sophia2: ours[0].y,
      sophia5: ours[ours.length - 1].y,
      adam: await ends((lr) => optim.adam({ lr }), [1e-2, 0.1]),
    },
    curves: { Sophia: ours, 'gradient descent': theirs },
  }
}

export const control: readonly study.Control[] = [
  {
    what: 'the curvature is taken to be 1 everywhere',
    fails: ['sophia'],
    async experiment({ seed, pick }) {
      const at = (condition: number) => stepsOf(sophia(constant), toy(condition), seed, pick(2e4, 50))
      return { numbers: { sophia: (await at(1e5)) / (await at(1e2)) } }
    },
  },
  {
    what: 'the Gauss–Newton estimate without the number of rows',
    fails: ['gaussNewton'],
    async experiment({ seed, pick }) {
      return { numbers: { gaussNewton: await bias(optim.gaussNewton({ factor: 1 }), seed, pick(8000, 20)) } }
    },
  },
]

export const plot: study.Plot = { x: 'condition', y: 'steps to a loss of 1e-6', logX: true, logY: true }
