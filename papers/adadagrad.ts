import { compile, crossEntropy, grad, nn, optim, perExampleGrads, random, tensor } from 'steepest'
import type { study, Tensor } from 'steepest'
import { keyOf } from './support/keys.js'
import { accuracy, once } from './support/learn.js'
import { logSlope } from './support/numbers.js'
import { prototypes } from './support/rows.js'

export const claim: study.Claim = {
  title: 'AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods',
  by: 'Lau, Liu, Kolar 2024',
  source: 'arXiv 2402.11215',
  says:
    'AdaGrad-Norm whose batch grows whenever the spread of the gradients within it is too large for their mean makes the squared gradient fall ' +
    'as 1/K over K steps, on losses that are smooth and not convex, where small batches of one size are slower; a network is trained better so ' +
    'than with large batches, in far fewer steps than with small ones.',
  criteria: [
    { number: 'adaptive', what: 'slope of the log mean squared gradient by log steps, adaptive', atMost: -0.9 },
    { number: 'small', what: 'the same with batches of 8', atLeast: -0.8 },
    { number: 'final', what: 'squared gradient after 400 steps over that with batches of 8', atMost: 0.02 },
    {
      number: 'netAccuracy',
      what: 'network, as many examples: test accuracy over that with batches of 2048, in points (of 8 networks)',
      atLeast: 0,
    },
    { number: 'netSteps', what: 'network: steps over those with batches of 8', atMost: 0.5, over: 'every' },
  ],
  reports: {
    large: 'the same slope with batches of 2048',
    overLarge: 'squared gradient after 400 steps over that with batches of 2048',
    samples: 'examples that the adaptive run looked at, over those of batches of 2048',
    last: 'last batch of the adaptive run',
    netAdaptive: 'network: test accuracy, adaptive',
    netSmall: 'the same with batches of 8',
    netLarge: 'the same with batches of 2048',
  },
  notShown: 'Networks on images, the inner-product tests, and that test accuracy is that of small batches.',
  found:
    'A single network is ahead of that with large batches by −0.4 to 2.1 points, so eight are taken; with η = 2 the batch of 8 never grows. Where the largest batch is 1024, ' +
    'of twice as many examples, one size from the start is better (96.2 % against 95.2 % with η = 0.5 and 94.3 % with 1): the noise of the first small batches stays ' +
    'in what AdaGrad divides by.',
}

const [DIM, STEPS, FIRST, LARGE] = [50, 400, 8, 2048]

interface Data {
  x: Tensor
  y: Tensor
  n: number
}

/** Logistic regression with a penalty that is not convex, Σ w²/(1 + w²) / 100; labels of a random model, some of them wrong. */
async function data(seed: number, n: number): Promise<Data> {
  const draw = (i: number, shape: number[]) =>
    random.normal(random.foldIn(keyOf(seed, 'data'), i), shape, { dtype: 'float64' })
  const x = draw(0, [n, DIM])
  const y = x
    .matmul(draw(1, [DIM]))
    .add(draw(2, [n]).mul(2))
    .sign()
  await y.read()
  return { x, y, n }
}
type Weights = { w: Tensor }
type Example = { x: Tensor; y: Tensor }
const penalty = (w: Tensor): Tensor => w.square().div(w.square().add(1)).sum().mul(0.01)
const lossOf = ({ w }: Weights, { x, y }: Example): Tensor => x.matmul(w).mul(y).neg().softplus().mean().add(penalty(w))
const lossOfOne = ({ w }: Weights, { x, y }: Example): Tensor => x.mul(w).sum().mul(y).neg().softplus().add(penalty(w))

interface Ran {
  /** Squared norm of the full gradient before each step. */
  squares: number[]
  batches: number[]
}

const [known, knownNets] = [once<Ran>(), once<{ accuracy: number; steps: number }>()]

/** AdaGrad-Norm with batches that grow by the norm test of η, or stay as they are where η is infinite. */
async function run({ x, y, n }: Data, seed: number, first: number, eta: number, steps: number): Promise<Ran> {
  const optimizer = optim.adagradNorm({ lr: 1 })
  // One program for each size: sizes are powers of two times 8, the next above what the test asks for.
  const step = compile((params: Weights, state: optim.OptimizerState, rows: Tensor) => {
    const batch = { x: x.take(rows), y: y.take(rows) }
    const grads = perExampleGrads(lossOfOne)(params, batch)
    const mean = { w: grads.w.mean({ axis: 0 }) }
    const full = grad(lossOf)(params, { x, y }).w.square().sum()
    return { ...optimizer.update(params, mean, state), spread: optim.gradientSpread(grads), full }
  })
  let params: Weights = { w: tensor(new Float64Array(DIM)) }
  let state = optimizer.init(params)
  let size = first
  const ran: Ran = { squares: [], batches: [] }
  for (let t = 0; t < steps; t++) {
    const rows = random.integers(random.foldIn(keyOf(seed, 'order'), t), [size], 0, n)
    const next = step(params, state, rows)
    ;({ params, state } = next)
    ran.squares.push(await next.full.item())
    ran.batches.push(size)
    if (eta === Infinity) continue
    const [variance, meanSquare] = [await next.spread.variance.item(), await next.spread.meanSquare.item()]
    const spreads = { variance, meanSquare, innerVariance: 0, orthogonalVariance: 0 }
    const wanted = optim.neededBatch(spreads, { test: 'norm', eta })
    while (size < wanted && size < n) size = Math.min(n, 2 * size)
  }
  return ran
}

/** The mean squared gradient of the first K steps, by K. */
const means = (squares: readonly number[], at: readonly number[]): study.CurvePoint[] =>
  at.map((x) => ({ x, y: squares.slice(0, x).reduce((a, b) => a + b, 0) / x }))

/** A network of one hidden layer, by AdaGrad, until it has looked at so many examples; batches grow by the norm test of η. */
async function classify({ seed, pick }: study.Trial, first: number, eta: number) {
  const n = pick(8192, 256)
  const { x, y } = await prototypes(seed, { n: n + 4096, classes: 10, perClass: 4, dim: 32, noise: 1 })
  const model = new nn.MLP([32, 64, 10], { seed })
  const optimizer = optim.adagrad({ lr: 0.05 })
  type Params = Record<string, Tensor>
  const logits = (p: Params, rows: Tensor) => nn.withTensors(model, p).forward(rows)
  const lossOfOne = (p: Params, at: Example) => crossEntropy(logits(p, at.x.reshape([1, 32])), at.y.reshape([1]))
  const step = compile((p: Params, state: optim.OptimizerState, rows: Tensor) => {
    const grads = perExampleGrads(lossOfOne)(p, { x: x.take(rows), y: y.take(rows) })
    const mean = Object.fromEntries(Object.entries(grads).map(([k, g]) => [k, g.mean({ axis: 0 })]))
    return { ...optimizer.update(p, mean, state), spread: optim.gradientSpread(grads) }
  })
  let at = { params: nn.parameters(model), state: optimizer.init(nn.parameters(model)) }
  let [size, steps] = [first, 0]
  for (let seen = 0; seen < pick(32_768, 4 * first); seen += size, steps++) {
    const next = step(at.params, at.state, random.integers(random.foldIn(keyOf(seed, 'order'), steps), [size], 0, n))
    at = next
    if (eta !== Infinity) {
      const [variance, meanSquare] = [await next.spread.variance.item(), await next.spread.meanSquare.item()]
      const wanted = variance / (eta * eta * meanSquare)
      while (size < wanted && size < LARGE) size *= 2
    } else if (steps % 50 === 0) await next.spread.variance.item()
  }
  const held = [[n, n + 4096]] as [[number, number]]
  return { accuracy: 100 * (await accuracy(logits(at.params, x.slice(held)), y.slice(held))), steps }
}

async function all(trial: study.Trial, eta: number) {
  const { seed, quick, pick } = trial
  const [examples, steps] = [await data(seed, pick(20_000, 400)), pick(STEPS, 12)]
  const at = pick([20, 50, 100, 200, 400], [4, 8, 12])
  const descent = (first: number, eta: number) =>
    known(`${seed} ${first} ${eta} ${steps}`, () => run(examples, seed, first, eta, steps))
  const [adaptive, small] = [await descent(FIRST, eta), await descent(FIRST, Infinity)]
  const large = await descent(pick(LARGE, 64), Infinity)
  /** Accuracy and steps of eight networks, one with small batches, in the mean. */
  const nets = async (count: number, first: number, eta: number) => {
    let [accuracy, steps, i] = [0, 0, 0]
    for (; i < pick(count, 1); i++) {
      const own = { ...trial, seed: 8 * seed + i }
      const net = await knownNets(`${own.seed} ${quick} ${first} ${eta}`, () => classify(own, first, eta))
      accuracy += net.accuracy
      steps += net.steps
    }
    return { accuracy: accuracy / i, steps: steps / i }
  }
  const net = {
    adaptive: await nets(eta === Infinity ? 1 : 8, FIRST, 2 * eta),
    small: await nets(1, FIRST, Infinity),
    large: await nets(8, pick(LARGE, 64), Infinity),
  }
  const last = (ran: Ran) => ran.squares[steps - 1]
  const curve = (ran: Ran) => means(ran.squares, at)
  return {
    numbers: {
      adaptive: logSlope(curve(adaptive)),
      small: logSlope(curve(small)),
      final: last(adaptive) / last(small),
      large: logSlope(curve(large)),
      overLarge: last(adaptive) / last(large),
      samples: adaptive.batches.reduce((a, b) => a + b, 0) / (steps * large.batches[0]),
      last: adaptive.batches[steps - 1],
      netAccuracy: net.adaptive.accuracy - net.large.accuracy,
      netSteps: net.adaptive.steps / net.small.steps,
      netAdaptive: net.adaptive.accuracy,
      netSmall: net.small.accuracy,
      netLarge: net.large.accuracy,
    },
    curves: { adaptive: curve(adaptive), 'batches of 8': curve(small), 'batches of 2048': curve(large) },
  }
}

export const experiment = (trial: study.Trial): Promise<study.Outcome> => all(trial, 0.5)

export const control: study.Control = {
  what: 'the test never asks for more, so that the batch stays at 8',
  fails: ['adaptive', 'final', 'netSteps'],
  experiment: (trial) => all(trial, Infinity),
}

export const plot: study.Plot = {
  x: 'steps K',
  y: 'mean squared gradient of K steps',
  logX: true,
  logY: true,
  curves: ['adaptive', 'batches of 8', 'batches of 2048'],
}
