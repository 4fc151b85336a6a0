import { nn, optim, random, type study, tensor } from 'steepest'
import { walk } from './support/descend.js'
import { type Contender, contest, languageModel, lastOf } from './support/language.js'
import { once } from './support/learn.js'

export const claim: study.Claim = {
  title: 'Symbolic Discovery of Optimization Algorithms',
  by: 'Chen et al. 2023',
  source: 'arXiv 2302.06675',
  says:
    'Lion, which steps along the sign of a blend of gradient and momentum, trains as well as AdamW or better with half its state, at a learning ' +
    'rate three to ten times smaller.',
  criteria: [
    { number: 'equal', what: 'distance of |step| / rate from 1, worst weight', atMost: 1e-12, over: 'every' },
    {
      number: 'formula',
      what: 'distance of 200 steps from the formula, over their length',
      atMost: 1e-12,
      over: 'every',
    },
    { number: 'state', what: 'bytes of state over those of AdamW', atMost: 0.51, over: 'every' },
    {
      number: 'loss',
      what: 'held-out loss of a small language model over that of AdamW, each as it was best on seed 1000',
      atMost: 1.01,
    },
    {
      number: 'momentum',
      what: 'held-out loss over that of the sign of the gradient alone',
      atMost: 0.98,
      over: 'every',
    },
  ],
  reports: {
    lion: 'held-out loss of Lion after 2400 steps of 16 rows, in nats per letter',
    adamw: 'the same of AdamW',
    sign: 'the same of the sign of the gradient alone',
  },
  notShown: 'ViT, diffusion and large language models; that the gain grows with the batch; the search that found Lion.',
  found:
    'A sign moves a weight by the rate and no further, so that in 600 steps of 1024 letters Lion was behind (0.73 nats against 0.70, each at the best of three rates); after 2400 ' +
    'steps it is level. Each was tuned on seed 1000: AdamW ends at 0.667 and 0.662 with rates of 3e-3 and 1e-2, β₂ = 0.99 and a decay of 0.1, at 0.658 with 1e-2, 0.999 and 0.01. Lion ends ' +
    'at 0.681, 0.679 and 0.680 with 1e-3 and 3e-3 and decays of 1, 0.1 and 0.03: its mean remembers 100 steps, which is much of so short a run. With β₂ = 0.98 and 2e-3 it ends at 0.659, so ' +
    'the better rate is a fifth of that of AdamW. An earlier comparison, with AdamW at 3e-3, found Lion level at 1e-3 too, on other texts. That the gain grows with the batch is not ' +
    'seen: with 64 rows and 600 steps it was 8 % behind (0.640 and 0.591), with 16 rows 5 %.',
}

/** Rates, betas and decays are the best on seed 1000 of those that `found` tells. */
const ADAMW: Contender = {
  make: (lr) => optim.adamw({ lr, weightDecay: 0.01, clip: { globalNorm: 1 } }),
  rate: 1e-2,
}
const LION: Contender = { make: (lr) => optim.lion({ lr, betas: [0.9, 0.98], weightDecay: 0.5 }), rate: 2e-3 }
const SIGN: Contender = { make: (lr) => optim.lion({ lr, weightDecay: 1, betas: [0, 0] }), rate: 3e-3 }

const known = once<study.CurvePoint[]>()

/** The losses of an optimizer. */
const trained = (what: string, contender: Contender, trial: study.Trial): Promise<study.CurvePoint[]> =>
  known(`${what} ${trial.seed} ${trial.quick}`, () => contest(contender, trial))

/** Lion by its formula. */
const formula = optim.defineOptimizer({
  name: 'formula',
  hyper: { beta1: 0.9, beta2: 0.99, weightDecay: 0 },
  slots: { m: 0 },
  step({ p, g, slots: { m }, lr, hyper: { beta1, beta2, weightDecay } }) {
    const direction = m
      .mul(beta1)
      .add(g.mul(1 - beta1))
      .sign()
      .add(p.mul(weightDecay))
    return { p: p.sub(direction.mul(lr)), m: m.mul(beta2).add(g.mul(1 - beta2)) }
  },
})

/** Steps on random gradients: their size, and how far they lead from those of the formula. */
async function kernel(seed: number, optimizer: optim.Optimizer): Promise<{ equal: number; formula: number }> {
  const start = tensor(new Float64Array(50))
  const run = (o: optim.Optimizer) =>
    walk((x, t) => random.normal(random.foldIn(random.key(seed), t), x.shape, { dtype: 'float64' }), start, o, 200)
  const [path, other] = [run(optimizer), run(formula({ lr: 1e-3 }))]
  const steps = path.slice([[1]]).sub(path.slice([[0, 199]]))
  return {
    equal: await steps.abs().div(1e-3).sub(1).abs().max().item(),
    formula: await path.sub(other).abs().max().div(other.abs().max()).item(),
  }
}

export async function experiment(trial: study.Trial): Promise<study.Outcome> {
  const lion = await trained('lion', LION, trial)
  const adamw = await trained('adamw', ADAMW, trial)
  const sign = await trained('sign', SIGN, trial)
  const bytes = (optimizer: optim.Optimizer) =>
    Object.values(optimizer.stateBytes(nn.parameters(languageModel(0, 32)))).reduce((a, b) => a + b, 0)
  return {
    numbers: {
      ...(await kernel(trial.seed, optim.lion({ lr: 1e-3 }))),
      state: bytes(LION.make(1)) / bytes(ADAMW.make(1)),
      loss: lastOf(lion) / lastOf(adamw),
      momentum: lastOf(lion) / lastOf(sign),
      lion: lastOf(lion),
      adamw: lastOf(adamw),
      sign: lastOf(sign),
    },
    curves: { Lion: lion, AdamW: adamw, 'sign alone': sign },
  }
}

export const control: study.Control = {
  what: 'the sign of the gradient alone, without momentum',
  fails: ['formula', 'loss'],
  async experiment(trial) {
    const [sign, adamw] = [await trained('sign', SIGN, trial), await trained('adamw', ADAMW, trial)]
    const { formula: apart } = await kernel(trial.seed, optim.lion({ lr: 1e-3, betas: [0, 0] }))
    return { numbers: { formula: apart, loss: lastOf(sign) / lastOf(adamw) } }
  },
}

export const plot: study.Plot = {
  x: 'step of 16 rows of 32 letters',
  y: 'held-out loss, nats per letter',
  curves: ['Lion', 'AdamW', 'sign alone'],
}
