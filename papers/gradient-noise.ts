import { crossEntropy, nn, optim, random, type study, type Tensor, tensor } from 'steepest'
import { walk } from './support/descend.js'
import { accuracy, learn } from './support/learn.js'
import { batches, prototypes, type Rows } from './support/rows.js'

export const claim: study.Claim = {
  title: 'Adding Gradient Noise Improves Learning for Very Deep Networks',
  by: 'Neelakantan et al. 2015',
  source: 'arXiv 1511.06807',
  says:
    'Gaussian noise on every gradient, whose variance falls as η/(1 + t)^0.55, lets a network of twenty layers learn from an initialization ' +
    'from which plain SGD does not.',
  criteria: [
    { number: 'zeroPlain', what: 'accuracy from zero weights without noise', atMost: 0.3, over: 'every' },
    { number: 'zeroNoise', what: 'the same with the best of four noises', atLeast: 0.95, over: 'median' },
    { number: 'poorGain', what: 'accuracy from N(0, 0.1²) with the best noise, minus that without', atLeast: 0.3 },
    {
      number: 'goodLoss',
      what: 'accuracy from He’s weights without noise, minus that with the noise which is best there',
      atMost: 0.02,
    },
    {
      number: 'variance',
      what: 'distance of the measured variance of the noise from the formula, steps 1, 101, 1001, relative',
      atMost: 0.05,
      over: 'every',
    },
  ],
  reports: {
    zeroEta: 'η that is best from zero weights',
    poorEta: 'η that is best from N(0, 0.1²)',
    poorPlain: 'accuracy from N(0, 0.1²) without noise',
    once: 'accuracy from zero weights, as much noise as 100 steps add put on the weights once',
  },
  notShown:
    'Memory networks and neural programmers. From weights that are exactly zero, noise works by breaking their symmetry, an initialization in ' +
    'disguise (as much noise, put on the weights once, is printed beside it); N(0, 0.1²) is the real claim.',
}

const [DEPTH, WIDTH, INPUTS, CLASSES, LR] = [20, 50, 20, 4, 0.1]
const ETAS = [0.01, 0.1, 0.3, 1]
type Start = 'zero' | 'poor' | 'good'

/** Twenty hidden layers of 50, from weights that are zero, N(0, 0.1²), or He's. */
function network(start: Start, seed: number): nn.MLP {
  const model = new nn.MLP([INPUTS, ...Array<number>(DEPTH).fill(WIDTH), CLASSES], { seed })
  const keys = new nn.Keys(seed + 1)
  const init = { zero: nn.init.zero(), poor: nn.init.normal(0.1), good: nn.init.kaimingNormal() }[start]
  for (const layer of model.layers) {
    layer.weight = init(keys.next(), layer.weight.shape)
    layer.bias = nn.init.zero()(keys.next(), [layer.weight.shape[0]])
  }
  return model
}

interface Task {
  train: Rows
  seed: number
  steps: number
}

/** Accuracy on the training rows after SGD with clipped, then noisy gradients; η of 0 is none. */
async function score(task: Task, model: nn.MLP, eta: number): Promise<number> {
  const { train, seed, steps } = task
  const plain = optim.sgd({ lr: LR, clip: { globalNorm: 10 } })
  const rows = await batches(seed, train.y.size, 64, steps)
  const { params } = await learn({
    params: nn.parameters(model),
    loss: (p: Record<string, Tensor>, at: Tensor) =>
      crossEntropy(nn.withTensors(model, p).forward(train.x.take(at)), train.y.take(at)),
    optimizer: eta === 0 ? plain : optim.gradientNoise(plain, { eta, gamma: 0.55, seed }),
    steps,
    batchOf: (t) => rows[t - 1],
  })
  return accuracy(nn.withTensors(model, params).forward(train.x), train.y)
}

async function taskOf({ seed, pick }: study.Trial): Promise<Task> {
  const n = pick(2000, 128)
  return { train: await prototypes(seed, { n, classes: CLASSES, dim: INPUTS, noise: 0.5 }), seed, steps: pick(1500, 3) }
}

/** Accuracy by η from a start. */
async function byNoise(task: Task, start: Start, etas: readonly number[]): Promise<study.CurvePoint[]> {
  const points: study.CurvePoint[] = []
  for (const eta of etas) points.push({ x: eta, y: await score(task, network(start, task.seed), eta) })
  return points
}
const best = (points: readonly study.CurvePoint[]) => points.reduce((a, b) => (b.y > a.y ? b : a))

/** The worst relative distance of the noise's variance from the formula: what SGD of rate 1 moves weights by without a gradient. */
async function varianceError(seed: number, n: number): Promise<number> {
  const optimizer = optim.gradientNoise(optim.sgd({ lr: 1 }), { eta: 0.3, gamma: 0.55, seed })
  const path = walk((x) => x.mul(0), tensor(new Float64Array(n)), optimizer, 1001)
  let worst = 0
  for (const t of [1, 101, 1001]) {
    const before = t === 1 ? path.slice([[0, 1]]).mul(0) : path.slice([[t - 2, t - 1]])
    const variance = await path
      .slice([[t - 1, t]])
      .sub(before)
      .square()
      .mean()
      .item()
    worst = Math.max(worst, Math.abs(variance / (0.3 / t ** 0.55) - 1))
  }
  return worst
}

/** Zero weights with N(0, σ²) on them, σ² what 100 noisy steps add up to. */
function shaken(seed: number, eta: number): nn.MLP {
  let variance = 0
  for (let t = 1; t <= 100; t++) variance += (LR * LR * eta) / t ** 0.55
  const model = network('zero', seed)
  const keys = new nn.Keys(seed + 2)
  for (const layer of model.layers) {
    layer.weight = random.normal(keys.next(), layer.weight.shape).mul(Math.sqrt(variance))
    layer.bias = random.normal(keys.next(), [layer.weight.shape[0]]).mul(Math.sqrt(variance))
  }
  return model
}

export async function experiment(trial: study.Trial): Promise<study.Outcome> {
  const task = await taskOf(trial)
  const etas = trial.pick(ETAS, [0.1])
  const plain = async (start: Start) => score(task, network(start, task.seed), 0)
  const [zero, poor] = [await byNoise(task, 'zero', etas), await byNoise(task, 'poor', etas)]
  const good = await byNoise(task, 'good', trial.pick([0.01, 0.1], [0.01]))
  const poorPlain = await plain('poor')
  return {
    numbers: {
      zeroPlain: await plain('zero'),
      zeroNoise: best(zero).y,
      poorGain: best(poor).y - poorPlain,
      goodLoss: (await plain('good')) - best(good).y,
      variance: await varianceError(trial.seed, trial.pick(20_000, 5_000)),
      zeroEta: best(zero).x,
      poorEta: best(poor).x,
      poorPlain,
      once: await score(task, shaken(task.seed, best(zero).x), 0),
    },
    curves: { 'from zero': zero, 'from N(0, 0.1²)': poor },
  }
}

export const control: study.Control = {
  what: 'noise that is next to nothing, η = 1e-8',
  fails: ['zeroNoise', 'poorGain'],
  async experiment(trial) {
    const task = await taskOf(trial)
    const with0 = async (start: Start, eta: number) => score(task, network(start, task.seed), eta)
    const zeroNoise = await with0('zero', 1e-8)
    return { numbers: { zeroNoise, poorGain: (await with0('poor', 1e-8)) - (await with0('poor', 0)) } }
  },
}

export const plot: study.Plot = { x: 'η', y: 'accuracy', logX: true }
