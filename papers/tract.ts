import { crossEntropy, nn, optim, random, solve, type study, type Tensor, tensor } from 'steepest'
import { fields } from './support/fields.js'
import { accuracy, learn, once } from './support/learn.js'
import { batches, type Rows } from './support/rows.js'

export const claim: study.Claim = {
  title: 'TrAct: Making First-layer Pre-Activations Trainable',
  by: 'Petersen, Borgelt, Ermon, NeurIPS 2024',
  source: 'arXiv 2410.23970',
  says:
    'Replacing the weight gradient G of the first layer by G (XᵀX/b + λ)⁻¹, which moves its activations as gradient descent on them would, ' +
    'reaches the accuracy of plain training in 1/1.25 to 1/4 of the epochs on images, whose inputs are badly conditioned.',
  criteria: [
    {
      number: 'exact',
      what: 'distance from the formula, more and fewer rows than inputs, relative',
      atMost: 1e-9,
      over: 'every',
    },
    {
      number: 'plainLimit',
      what: 'distance of λ times the gradient from the plain one, λ = 1e6, relative',
      atMost: 1e-4,
      over: 'every',
    },
    {
      number: 'sgd',
      what: 'steps that SGD needs to 99.5 %, over those with TrAct, each at its best rate',
      atLeast: 1.25,
      over: 'median',
    },
    { number: 'adam', what: 'the same of Adam', atLeast: 1.25, over: 'median' },
    { number: 'whiteLow', what: 'the same of SGD where inputs are white', atLeast: 0.8, over: 'median' },
    { number: 'whiteHigh', what: 'the same of SGD where inputs are white', atMost: 1.25, over: 'median' },
  ],
  notShown:
    'CIFAR and ImageNet with ResNets and vision transformers. On an easy task there is nothing to gain: this one has inputs like natural images.',
}

type Make = (lr: number) => optim.Optimizer
const SGD: Make = (lr) => optim.sgd({ lr, momentum: 0.9 })
const ADAM: Make = (lr) => optim.adam({ lr })
const RATES = { sgd: [0.01, 0.03, 0.1], adam: [3e-4, 1e-3, 3e-3] }
const withTract =
  (make: Make, lambda = 0.1): Make =>
  (lr) =>
    optim.tract(make(lr), { lambda })

const [BATCH, EPOCHS, EVERY, TARGET] = [128, 12, 4, 0.995]

interface Task {
  name: string
  train: Rows
  test: Rows
  seed: number
  steps: number
}

/** Test accuracy every fourth step. */
async function curve({ train, test, seed, steps }: Task, optimizer: optim.Optimizer): Promise<study.CurvePoint[]> {
  const model = new nn.MLP([train.x.shape[1], 128, 128, 8], { seed })
  const rows = await batches(seed, train.y.size, BATCH, steps)
  const logits = (p: Record<string, Tensor>, x: Tensor) => nn.withTensors(model, p).forward(x)
  const points: study.CurvePoint[] = []
  await learn({
    params: nn.parameters(model),
    loss: (p: Record<string, Tensor>, at: Tensor) => crossEntropy(logits(p, train.x.take(at)), train.y.take(at)),
    optimizer,
    steps,
    batchOf: (t) => rows[t - 1],
    async onStep(t, p) {
      if (t % EVERY === 0) points.push({ x: t, y: await accuracy(logits(p, test.x), test.y) })
    },
  })
  return points
}

/** The first step from which on the accuracy is that of the target; one more than there are where it never is. */
const stepsTo = (points: readonly study.CurvePoint[], steps: number): number =>
  points.find((p) => p.y >= TARGET)?.x ?? steps + 1

/** The fewest steps to the target over the rates, and the curve that took them. */
async function fewest(
  task: Task,
  make: Make,
  rates: readonly number[],
): Promise<{ steps: number; points: study.CurvePoint[] }> {
  let best = { steps: Infinity, points: [] as study.CurvePoint[] }
  for (const lr of rates) {
    const points = await curve(task, make(lr))
    const steps = stepsTo(points, task.steps)
    if (steps < best.steps) best = { steps, points }
  }
  return best
}

/** How far the step of the wrapper is from G (XᵀX/b + λ)⁻¹ on a layer of its own. */
async function distance(
  seed: number,
  rows: number,
  inputs: number,
  lambda: number,
): Promise<{ exact: number; plain: number }> {
  const draw = (i: number, shape: number[]) =>
    random.normal(random.foldIn(random.key(seed), i), shape, { dtype: 'float64' })
  const [x, slope] = [draw(0, [rows, inputs]), draw(1, [rows, 4])]
  const params = { weight: draw(2, [4, inputs]) }
  const optimizer = optim.tract(optim.sgd({ lr: 1 }), { lambda })
  const objective = optim.objective((p: typeof params) => x.matmul(p.weight.transpose()).mul(slope).sum())
  const step = params.weight.sub(optimizer.step!(objective, params, optimizer.init(params)).params.weight)
  const plain = slope.transpose().matmul(x)
  const diagonal = tensor(
    Float64Array.from({ length: inputs ** 2 }, (_, i) => (i % (inputs + 1) === 0 ? lambda : 0)),
    {
      shape: [inputs, inputs],
    },
  )
  const wanted = solve(x.transpose().matmul(x).div(rows).add(diagonal), plain.transpose()).transpose()
  const apart = (a: Tensor, b: Tensor) => a.sub(b).abs().max().div(b.abs().max()).item()
  return { exact: await apart(step, wanted), plain: await apart(step.mul(lambda), plain) }
}

async function taskOf({ seed, pick }: study.Trial, white = false): Promise<Task> {
  const [n, held] = [pick(4000, 256), pick(1000, 256)]
  const { x, y } = await fields(seed, n + held, white)
  const part = (from: number, to: number): Rows => ({ x: x.slice([[from, to]]), y: y.slice([[from, to]]) })
  return {
    name: `${seed} ${n} ${white}`,
    train: part(0, n),
    test: part(n, n + held),
    seed,
    steps: pick(EPOCHS * Math.floor(n / BATCH), 8),
  }
}

const known = once<Awaited<ReturnType<typeof fewest>>>()

/** Steps to the target without TrAct over those with it. */
async function ratio(task: Task, make: Make, rates: readonly number[], quick: boolean, other = withTract(make)) {
  const tried = quick ? rates.slice(0, 1) : rates
  const plain = await known(`${task.name} ${make.name}`, () => fewest(task, make, tried))
  const tract = await fewest(task, other, tried)
  return { value: plain.steps / tract.steps, plain, tract }
}

export async function experiment(trial: study.Trial): Promise<study.Outcome> {
  const { seed, quick } = trial
  const [task, white] = [await taskOf(trial), await taskOf(trial, true)]
  const [more, fewer] = [await distance(seed, 30, 8, 0.1), await distance(seed, 8, 30, 0.1)]
  const [sgd, adam] = [await ratio(task, SGD, RATES.sgd, quick), await ratio(task, ADAM, RATES.adam, quick)]
  const { value: flat } = await ratio(white, SGD, RATES.sgd, quick)
  return {
    numbers: {
      exact: Math.max(more.exact, fewer.exact),
      plainLimit: (await distance(seed, 30, 8, 1e6)).plain,
      sgd: sgd.value,
      adam: adam.value,
      whiteLow: flat,
      whiteHigh: flat,
    },
    curves: {
      SGD: sgd.plain.points,
      'SGD, TrAct': sgd.tract.points,
      Adam: adam.plain.points,
      'Adam, TrAct': adam.tract.points,
    },
  }
}

export const control: study.Control = {
  what: 'λ = 1000 and the rate of the first layer multiplied by it, which is plain training',
  fails: ['sgd'],
  async experiment(trial) {
    const task = await taskOf(trial)
    const idle: Make = (lr) =>
      optim.tract(optim.sgd({ lr, momentum: 0.9, groups: [{ match: ['layers.0.weight'], lrScale: 1000 }] }), {
        lambda: 1000,
      })
    return { numbers: { sgd: (await ratio(task, SGD, RATES.sgd, trial.quick, idle)).value } }
  },
}

export const plot: study.Plot = { x: 'step', y: 'test accuracy', curves: ['SGD', 'SGD, TrAct', 'Adam', 'Adam, TrAct'] }
