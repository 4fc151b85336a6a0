import { eigh, matmul, memory, nn, optim, type study, type Tensor } from 'steepest'
import { best, Student, teach } from './support/teacher.js'

export const claim: study.Claim = {
  title: 'FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training',
  by: 'Zmushko et al., ICML 2025',
  source: 'arXiv 2411.07837',
  says:
    'Adam on a part of every matrix and a step along the sign of the gradient on all the rest, which needs no state, is better than the methods ' +
    'that leave the rest alone (GaLore, BAdam) at the same memory, and near Adam; its updates have full rank.',
  criteria: [
    { number: 'bytes', what: 'bytes of states over those of Adam, over the density of 1/8, away from 1', atMost: 0.02 },
    { number: 'galore', what: 'error over that of GaLore, each at its best rate', atMost: 0.9, over: 'every' },
    { number: 'badam', what: 'error over that of BAdam', atMost: 0.9, over: 'every' },
    { number: 'gap', what: 'distance to the error of Adam, over that of GaLore', atMost: 0.5 },
    {
      number: 'whole',
      what: 'distance from Adam at density 1, largest weight after 40 steps',
      atMost: 1e-6,
      over: 'every',
    },
    { number: 'empty', what: 'distance from sign descent at density 0', atMost: 0, over: 'every' },
    { number: 'rank', what: 'rank of what 20 steps with one choice add, over the smaller side', atLeast: 0.9 },
    { number: 'low', what: 'the same of GaLore with rank 8 of 64', atMost: 0.126 },
  ],
  reports: {
    adamError: 'error of Adam at its best rate',
    error: 'error of FRUGAL, columns, density 1/8',
    svdError: 'error of FRUGAL, singular vectors, density 1/8',
    emptyError: 'error of FRUGAL, density 0',
    galoreError: 'error of GaLore, rank 8',
    badamError: 'error of BAdam, the three matrices in turn',
  },
  found:
    'On a task as small as this the sign alone is almost as good as FRUGAL with an eighth of the states, as the paper finds of small models: what ' +
    'counts is that everything moves. At density 1 it is Adam but for the rounding of one more addition.',
  notShown: 'LLaMA of 60 million to a billion parameters on C4, and fine-tuning.',
}

const RATES = [3e-3, 1e-2, 3e-2, 0.1, 0.3]
const GAP = 40
const DENSITY = 1 / 8
const adam = (lr: optim.Schedule | number) => optim.adam({ lr })
const frugal = (options: memory.FrugalOptions) => (lr: optim.Schedule | number) =>
  memory.frugal(adam(lr), { density: DENSITY, updateGap: GAP, ...options })
const galore = (lr: optim.Schedule | number) => memory.galore(adam(lr), { rank: 8, updateGap: GAP })
const badam = (lr: optim.Schedule | number) => memory.badam(adam(lr), { switchEvery: GAP })

type Make = (lr: optim.Schedule) => optim.Optimizer

const momentBytes = (optimizer: optim.Optimizer, params: Record<string, Tensor>) => {
  const { m, v } = optimizer.stateBytes(params)
  return m + v
}

/** The largest difference of two trained students. */
async function apart(seed: number, one: Make, two: Make, steps: number): Promise<number> {
  const options = { lr: 0.01, steps }
  const [a, b] = [(await teach(seed, one, options)).params, (await teach(seed, two, options)).params]
  const all = await Promise.all(Object.keys(a).map((k) => a[k].sub(b[k]).abs().max().item()))
  return Math.max(...all)
}

/** The rank of what some steps add to the middle matrix: singular values above a thousandth of the largest, over its side. */
async function rankOf(seed: number, make: Make, steps: number): Promise<number> {
  const name = 'layers.1.weight'
  const start = nn.parameters(new Student(3 * seed + 1))[name]
  const { params } = await teach(seed, make, { lr: 0.01, steps })
  const added = params[name].sub(start).cast('float64')
  const squares = await eigh(matmul(added.transpose(), added)).values.read()
  const largest = Math.max(...squares.map(Number))
  return squares.map(Number).filter((v) => v > 1e-6 * largest).length / squares.length
}

async function compare({ seed, pick }: study.Trial, options: memory.FrugalOptions) {
  const [rates, steps] = [pick(RATES, [0.01]), pick(600, 4)]
  const at = async (make: Make) => (await best(seed, make, { rates, steps })).error
  const error = await at(frugal(options))
  const [adamError, galoreError, badamError] = [await at(adam), await at(galore), await at(badam)]
  return {
    galore: error / galoreError,
    badam: error / badamError,
    gap: (error - adamError) / (galoreError - adamError),
    error,
    adamError,
    galoreError,
    badamError,
  }
}

export async function experiment(trial: study.Trial): Promise<study.Outcome> {
  const { seed, pick } = trial
  const params = nn.parameters(new Student(seed))
  const found = await compare(trial, {})
  const [rates, steps] = [pick(RATES, [0.01]), pick(600, 4)]
  const at = async (make: Make) => (await best(seed, make, { rates, steps })).error
  const errors: study.CurvePoint[] = []
  for (const density of pick([1 / 16, DENSITY, 1 / 4, 1 / 2], [DENSITY]))
    errors.push({ x: density, y: density === DENSITY ? found.error : await at(frugal({ density })) })
  const emptyError = await at(frugal({ density: 0 }))
  const level = (y: number) => errors.map(({ x }) => ({ x, y }))
  return {
    numbers: {
      ...found,
      bytes: Math.abs(momentBytes(frugal({})(0.1), params) / momentBytes(adam(0.1), params) / DENSITY - 1),
      whole: await apart(seed, frugal({ density: 1, reset: false }), adam, pick(40, 4)),
      empty: await apart(seed, frugal({ density: 0 }), (lr) => optim.signSgd({ lr }), pick(40, 4)),
      rank: await rankOf(seed, frugal({}), pick(20, 2)),
      low: await rankOf(seed, galore, pick(20, 2)),
      svdError: await at(frugal({ choice: 'svd' })),
      emptyError,
    },
    curves: {
      FRUGAL: errors,
      'sign alone': level(emptyError),
      'GaLore, rank 8': level(found.galoreError),
      BAdam: level(found.badamError),
      Adam: level(found.adamError),
    },
  }
}

export const control: study.Control = {
  what: 'nothing moves what has no state',
  fails: ['galore', 'badam', 'gap'],
  experiment: async (trial) => ({ numbers: await compare(trial, { outside: 'none' }) }),
}

export const plot: study.Plot = { x: 'density', y: 'error of the student', logX: true, logY: true }
