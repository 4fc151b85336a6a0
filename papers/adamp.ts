import { compile, crossEntropy, nn, optim, random, relu, scan, type study, type Tensor } from 'steepest'
import { accuracy, learn } from './support/learn.js'
import { batches, prototypes, type Rows } from './support/rows.js'

export const claim: study.Claim = {
  title: 'AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights',
  by: 'Heo et al., ICLR 2021',
  source: 'arXiv 2006.08217',
  says:
    'Momentum makes the norm of scale-invariant weights (those before a normalization) grow by a factor of 1 + 2β/(1 − β) more than gradient ' +
    'descent does, which slows learning down; taking the radial part off the step restores the growth, and helps.',
  criteria: [
    {
      number: 'heavy9',
      what: 'growth of the squared norm over the sum of squared steps, momentum 0.9, over 19',
      atLeast: 0.98,
      over: 'every',
    },
    { number: 'heavy9High', what: 'the same', atMost: 1.02, over: 'every' },
    { number: 'heavy5', what: 'the same with momentum 0.5, over 3', atLeast: 0.98, over: 'every' },
    { number: 'heavy5High', what: 'the same', atMost: 1.02, over: 'every' },
    { number: 'sgdp', what: 'distance of the same from 1, SGDP with momentum 0.9', atMost: 1e-3, over: 'every' },
    { number: 'norm', what: 'norm of scale-invariant weights of a network, AdamP over Adam', atMost: 0.8 },
    { number: 'overAdam', what: 'test accuracy over that of Adam, each at its best rate, in points', atLeast: 0 },
    { number: 'found', what: 'share of steps in which scale-invariant matrices are projected', atLeast: 0.9 },
    { number: 'spared', what: 'share of steps in which the classifier is projected', atMost: 0.2 },
  ],
  reports: { adamp: 'test accuracy of AdamP', adam: 'test accuracy of Adam' },
  notShown:
    'ImageNet and the twelve other benchmarks of the paper, and that the gain in accuracy is as large as there.',
  found:
    'The rate has to be large enough for the norm to grow at all: at 1e-3, 1500 steps add 4 % to what it begins with, and the ratio is 0.96. ' +
    'On a task that both solve (97 %) no difference can be seen; this one leaves room.',
}

const [DIM, LR, STEPS] = [50, 0.01, 5000]
/** Peaks of the rate of the network; its norms are those of the middle one. */
const LRS = [3e-3, 1e-2, 3e-2]

/** Growth of |w|² over Σ|Δw|² of an optimizer on random gradients at right angles to w, which is what a scale-invariant loss gives. */
async function growth(optimizer: optim.Optimizer, seed: number, steps: number): Promise<number> {
  const run = compile((w0: Tensor) =>
    scan(
      ({ w, state, length }) => {
        const drawn = random.normal(random.foldIn(random.key(seed), state.step), w.shape, { dtype: 'float64' })
        const g = drawn.sub(w.mul(drawn.mul(w).sum().div(w.square().sum())))
        const next = optimizer.update({ w }, { w: g }, state)
        const moved = next.params.w.sub(w).square().sum()
        return {
          carry: { w: next.params.w, state: next.state, length: length.add(moved) },
          y: next.params.w.square().sum(),
        }
      },
      { w: w0, state: optimizer.init({ w: w0 }), length: w0.sum().mul(0) },
      null as never,
      { length: steps },
    ),
  )
  const start = random.normal(random.key(seed + 1), [1, DIM], { dtype: 'float64' })
  const { carry, ys } = run(start)
  const norms = await ys.read()
  return (norms[steps - 1] - (await start.square().sum().item())) / (await carry.length.item())
}

/** Two hidden layers whose outputs are standardized over the batch, so that their weights have no scale; and a classifier. */
class Net extends nn.Module {
  hidden: nn.Linear[]
  head: nn.Linear
  constructor(seed: number) {
    super()
    const keys = new nn.Keys(seed)
    this.hidden = [32, 64].map((inputs) => new nn.Linear(inputs, 64, { bias: false, key: keys.next() }))
    this.head = new nn.Linear(64, 10, { key: keys.next() })
  }
  forward(x: Tensor): Tensor {
    const standard = (h: Tensor) => {
      const centered = h.sub(h.mean({ axis: 0 }))
      return relu(centered.div(centered.square().mean({ axis: 0 }).add(1e-6).sqrt()))
    }
    return this.head.forward(this.hidden.reduce((h, layer) => standard(layer.forward(h)), x))
  }
}

interface NetResult {
  norm: number
  accuracy: number
  found: number
  spared: number
  norms: study.CurvePoint[]
}

async function trainNet(
  optimizer: optim.Optimizer,
  seed: number,
  train: Rows,
  test: Rows,
  steps: number,
): Promise<NetResult> {
  const model = new Net(seed)
  const rows = await batches(seed, train.y.size, 64, steps)
  const names = Object.keys(nn.parameters(model))
  const logits = (p: Record<string, Tensor>, x: Tensor) => nn.withTensors(model, p).forward(x)
  const norms: study.CurvePoint[] = []
  const projected: Record<string, number[]> = { hidden: [], head: [] }
  let before: Record<string, Float64Array> = {}
  const read = async (p: Record<string, Tensor>) => {
    const all = await Promise.all(names.map(async (k) => [k, Float64Array.from(await p[k].read(), Number)] as const))
    return Object.fromEntries(all)
  }
  const { params } = await learn({
    params: nn.parameters(model),
    loss: (p: Record<string, Tensor>, at: Tensor) => crossEntropy(logits(p, train.x.take(at)), train.y.take(at)),
    optimizer,
    steps,
    batchOf: (t) => rows[t - 1],
    async onStep(t, p) {
      // Every 25th step is looked at: a step that was projected is at right angles to the weights, row by row.
      if (t % 25 > 1) return
      const now = await read(p)
      if (t % 25 === 0) before = now
      if (t % 25 === 0) norms.push({ x: t, y: Math.hypot(...now['hidden.0.weight'], ...now['hidden.1.weight']) })
      if (t % 25 !== 1 || t === 1) return
      for (const k of names.filter((name) => name.endsWith('weight'))) {
        const width = nn.parameters(model)[k].shape[1]
        projected[k === 'head.weight' ? 'head' : 'hidden'].push(isTangent(before[k], now[k], width) ? 1 : 0)
      }
    },
  })
  const share = (list: number[]) => list.reduce((a, b) => a + b, 0) / Math.max(1, list.length)
  return {
    norm: norms[norms.length - 1].y,
    accuracy: 100 * (await accuracy(logits(params, test.x), test.y)),
    found: share(projected.hidden),
    spared: share(projected.head),
    norms,
  }
}

/** Whether a step has no part along the weights, in every row or as a whole. */
function isTangent(before: Float64Array, after: Float64Array, width: number): boolean {
  const cosine = (from: number, to: number) => {
    let [dot, step, weight] = [0, 0, 0]
    for (let i = from; i < to; i++) {
      const d = after[i] - before[i]
      dot += d * before[i]
      step += d * d
      weight += before[i] ** 2
    }
    return step === 0 ? 0 : Math.abs(dot) / Math.sqrt(step * weight)
  }
  const rows = Array.from({ length: before.length / width }, (_, r) => cosine(r * width, (r + 1) * width))
  return Math.max(...rows) < 1e-3 || cosine(0, before.length) < 1e-4
}

async function walks(seed: number, steps: number, delta: number) {
  const heavy = async (momentum: number) => growth(optim.sgd({ lr: LR, momentum }), seed, steps)
  const [nine, five] = [(await heavy(0.9)) / 19, (await heavy(0.5)) / 3]
  const sgdp = Math.abs((await growth(optim.sgdp({ lr: LR, momentum: 0.9, delta }), seed, steps)) - 1)
  return { heavy9: nine, heavy9High: nine, heavy5: five, heavy5High: five, sgdp }
}

export async function experiment({ seed, pick }: study.Trial): Promise<study.Outcome> {
  const task = { n: pick(10_000, 512), classes: 10, perClass: 8, dim: 32, noise: 1.5 }
  const { x, y } = await prototypes(seed, task)
  const cut = pick(4000, 256)
  const part = (from: number, to: number): Rows => ({ x: x.slice([[from, to]]), y: y.slice([[from, to]]) })
  const [train, test] = [part(0, cut), part(cut, task.n)]
  const steps = pick(1500, 60)
  const [ours, theirs]: NetResult[][] = [[], []]
  for (const peak of pick(LRS, LRS.slice(1, 2))) {
    const lr = optim.schedule({ kind: 'cosine', lr: peak, steps })
    ours.push(await trainNet(optim.adamp({ lr }), seed, train, test, steps))
    theirs.push(await trainNet(optim.adam({ lr }), seed, train, test, steps))
  }
  const best = (runs: NetResult[]) => runs.reduce((a, b) => (b.accuracy > a.accuracy ? b : a))
  const middle = ours.length >> 1
  const [p, a] = [ours[middle], theirs[middle]]
  return {
    numbers: {
      ...(await walks(seed, pick(STEPS, 100), 0.1)),
      norm: p.norm / a.norm,
      overAdam: best(ours).accuracy - best(theirs).accuracy,
      found: p.found,
      spared: p.spared,
      adamp: best(ours).accuracy,
      adam: best(theirs).accuracy,
    },
    curves: { AdamP: p.norms, Adam: a.norms },
  }
}

export const control: study.Control = {
  what: 'a threshold of 0, so that nothing is ever projected',
  fails: ['sgdp'],
  experiment: async ({ seed, pick }) => ({ numbers: await walks(seed, pick(STEPS, 100), 0) }),
}

export const plot: study.Plot = { x: 'step', y: 'norm of the weights before a normalization' }
