import { optim, type study } from 'steepest'
import { imitate } from './support/imitation.js'
import { tailMean } from './support/learn.js'
import { geometricMean } from './support/numbers.js'
import { type LogisticTask, leastLoss, logisticTask, lowest, onAll, scored, shuffled } from './support/logistic.js'

export const claim: study.Claim = {
  title: 'Target-based Surrogates for Stochastic Optimization',
  by: 'Lavington et al., ICML 2023',
  source: 'arXiv 2302.02607',
  says:
    'Where looking at the loss is dear, each look can be used for several steps: its gradient in the space of the scores makes a surrogate that ' +
    'bounds the loss from above, and is minimized without looking again. With as many looks, this is ahead of SGD, and where an expert is imitated, of Adam.',
  criteria: [
    {
      number: 'rise',
      what: 'largest rise of the loss in a step on all examples, η = 1/L, 1 to 50 inner steps',
      atMost: 1e-12,
      over: 'every',
    },
    {
      number: 'falls',
      what: 'loss after 20 such steps with 20 inner ones, over that before',
      atMost: 0.5,
      over: 'every',
    },
    {
      number: 'overSgd',
      what: 'logistic regression: loss above the least after 300 looks with 20 inner steps, over that of SGD, each at its best rate (of 8 data sets)',
      atMost: 0.8,
    },
    {
      number: 'innerNoisy',
      what: 'the same loss with 5 over 1 and 20 over 5 inner steps at η = 4, the larger',
      atMost: 1,
    },
    {
      number: 'expert',
      what: 'imitation: loss in the last 5 of 50 looks at an expert with 20 inner steps, over the better of SGD and Adam',
      atMost: 0.5,
      over: 'every',
    },
    {
      number: 'inner',
      what: 'imitation: the same with 5 over 1 and 20 over 5 inner steps, the larger',
      atMost: 1,
      over: 'every',
    },
  ],
  reports: {
    overAdam: 'logistic regression: loss above the least over that of Adam, each at its best rate',
    least: 'the least loss',
    sgd: 'loss of SGD above it',
    adam: 'loss of Adam above it',
    surrogate: 'loss of the surrogate above it',
    expertSgd: 'imitation: loss of SGD',
    expertAdam: 'loss of Adam',
    expertOurs: 'loss of the surrogate',
  },
  notShown:
    'MuJoCo and its experts; surrogates of other shapes than the square; that it is ahead of Adam in logistic regression: on columns of such ' +
    'different scales it is not.',
  found:
    'The bound of 0.8 on the plain loss, met by the seeds that it was chosen with, was not on fresh ones (0.86): labels are drawn, so that most of what ' +
    'is left is the least loss that there is (0.04 to 0.09), which no method changes; so losses are measured from there. What is left differs much from one data set to ' +
    'the next (ratios of 0.18 to 1.16 over twelve), so that three of them met the bound or not by chance; a trial is the geometric mean over eight, and fifteen ' +
    'fresh ones gave 0.35 to 0.68. Rows of the fourth epoch were drawn in the order of their labels then, by equal keys, too. That more inner steps are better at η = 4, which failed on two ' +
    'of three single data sets, holds in such means. ' +
    'One inner step with a line search is not gradient descent, and no control: it met the bound once. ' +
    'In logistic regression Adam is ahead (by a third), since it scales every column by itself. Minimizing each surrogate to the end by L-BFGS, which needs no scaling, ' +
    'is no better (0.03): at 1/L steps are short where examples are told apart already. The case of the paper, where the loss is a square and a look is dear, is the ' +
    'imitation.',
}

const [LOOKS, ROUNDS] = [300, 50]
/** The logistic loss bends by at most ¼ in the score of an example, the square of an action by 1. */
const [INV_L, INV_L_SQUARE] = [4, 1]

const surrogate = (innerSteps: number, eta: number) => optim.surrogate(optim.armijo({ lr: 10 }), { innerSteps, eta })

/** The largest rise of the loss between steps on all examples with η = 1/L, and the last loss over the first. */
async function descent(task: LogisticTask, inner: readonly number[], steps: number, loss = scored) {
  let [rise, falls] = [-Infinity, 0]
  for (const m of inner) {
    const { losses } = await onAll(task, surrogate(m, INV_L), steps, loss)
    losses.slice(1).forEach((v, i) => (rise = Math.max(rise, v - losses[i])))
    falls = losses[steps - 1] / losses[0]
  }
  return { rise, falls }
}

const ETAS = [4, 8, 20, 40]
const SGD_RATES = [0.03, 0.1, 0.3, 1, 3]
const ADAM_RATES = [0.01, 0.03, 0.1, 0.3]
const CLONE_RATES = { sgd: [0.05, 0.1, 0.2], adam: [0.01, 0.03, 0.1] }

/** Losses above the least after some looks, each at the best of its rates. */
async function excess(task: LogisticTask, { pick }: study.Trial) {
  const floor = await leastLoss(task)
  const of = async (optimizers: readonly optim.Optimizer[]) => (await lowest(task, optimizers, pick(LOOKS, 4))) - floor
  const ours = (inner: number, etas: readonly number[]) => of(etas.map((eta) => surrogate(inner, eta)))
  return { floor, of, ours, sgd: await of(SGD_RATES.map((lr) => optim.sgd({ lr }))) }
}

/** Ratios of losses above the least, and those losses, over eight data sets: what is left differs by a factor of two from one to the next. */
async function noisy(trial: study.Trial) {
  const all: Record<'sgd' | 'adam' | 'surrogate' | 'least' | 'one' | 'five' | 'twenty', number>[] = []
  for (let i = 0; i < trial.pick(8, 1); i++) {
    const task = await logisticTask({ ...trial, seed: 8 * trial.seed + i })
    const { floor, of, ours, sgd } = await excess(task, trial)
    const adam = await of(ADAM_RATES.map((lr) => optim.adam({ lr })))
    const [one, five, twenty] = [await ours(1, [4]), await ours(5, [4]), await ours(20, [4])]
    all.push({ sgd, adam, surrogate: await ours(20, ETAS), least: floor, one, five, twenty })
  }
  type Key = keyof (typeof all)[number]
  const ratio = (a: Key, b: Key) => geometricMean(all.map((r) => r[a] / r[b]))
  const mean = (key: Key) => all.reduce((s, r) => s + r[key], 0) / all.length
  return {
    overSgd: ratio('surrogate', 'sgd'),
    overAdam: ratio('surrogate', 'adam'),
    innerNoisy: Math.max(ratio('five', 'one'), ratio('twenty', 'five')),
    least: mean('least'),
    sgd: mean('sgd'),
    adam: mean('adam'),
    surrogate: mean('surrogate'),
  }
}

/** The losses of rounds of imitation that end lowest. */
async function imitated(optimizers: readonly optim.Optimizer[], { seed, pick }: study.Trial): Promise<number[]> {
  const runs: number[][] = []
  for (const optimizer of optimizers) runs.push(await imitate(optimizer, seed, pick(ROUNDS, 3)))
  const end = (losses: number[]) => tailMean(losses) || Infinity
  return runs.reduce((a, b) => (end(b) < end(a) ? b : a))
}
const rivals = async (trial: study.Trial) => ({
  sgd: await imitated(
    CLONE_RATES.sgd.map((lr) => optim.sgd({ lr })),
    trial,
  ),
  adam: await imitated(
    CLONE_RATES.adam.map((lr) => optim.adam({ lr })),
    trial,
  ),
})

export async function experiment(trial: study.Trial): Promise<study.Outcome> {
  const { pick } = trial
  const others = await rivals(trial)
  const [one, five, twenty] = [
    await imitated([surrogate(1, INV_L_SQUARE)], trial),
    await imitated([surrogate(5, INV_L_SQUARE)], trial),
    await imitated([surrogate(20, INV_L_SQUARE)], trial),
  ]
  const [expertSgd, expertAdam, expertOurs] = [others.sgd, others.adam, twenty].map((losses) => tailMean(losses))
  const curve = (losses: readonly number[]) => losses.map((y, i) => ({ x: i + 1, y }))
  return {
    numbers: {
      ...(await descent(await logisticTask(trial), pick([1, 5, 50, 20], [1, 5]), pick(20, 3))),
      ...(await noisy(trial)),
      inner: Math.max(tailMean(five) / tailMean(one), tailMean(twenty) / tailMean(five)),
      expert: expertOurs / Math.min(expertSgd, expertAdam),
      expertSgd,
      expertAdam,
      expertOurs,
    },
    curves: {
      'surrogate, 20 inner steps': curve(twenty),
      '5 inner steps': curve(five),
      '1 inner step': curve(one),
      'SGD, best rate': curve(others.sgd),
      'Adam, best rate': curve(others.adam),
    },
  }
}

export const control: readonly study.Control[] = [
  {
    what: 'one inner step for each look: of gradient descent, and for the expert of the length that the line search finds',
    fails: ['overSgd', 'expert'],
    async experiment(trial) {
      const { of, sgd } = await excess(await logisticTask(trial), trial)
      const others = await rivals(trial)
      const one = tailMean(await imitated([surrogate(1, INV_L_SQUARE)], trial))
      const expert = one / Math.min(tailMean(others.sgd), tailMean(others.adam))
      const plain = await of(SGD_RATES.map((lr) => optim.surrogate(optim.sgd({ lr }), { innerSteps: 1, eta: INV_L })))
      return { numbers: { overSgd: plain / sgd, expert } }
    },
  },
  {
    what: 'each example gets the slope of another',
    fails: ['falls'],
    async experiment(trial) {
      const { falls } = await descent(await logisticTask(trial), [20], trial.pick(20, 3), shuffled)
      return { numbers: { falls } }
    },
  },
]

export const plot: study.Plot = { x: 'looks at the expert', y: 'loss of the imitation', logY: true }
