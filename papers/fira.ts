import { compile, grad, memory, nn, optim, type study, type Tensor } from 'steepest'
import { spearman } from './support/numbers.js'
import { best, lessons, Student, teach } from './support/teacher.js'

export const claim: study.Claim = {
  title: 'Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?',
  by: 'Chen et al. 2024',
  source: 'arXiv 2410.01623',
  says:
    'How much an adaptive rule scales a column is much the same in a small space as in the whole one. So the gradient outside of the space of GaLore can be ' +
    'scaled, without states of its own, as what is inside: with a limit to its growth this trains at full rank, near Adam and well ahead of GaLore and ' +
    'LoRA at the same memory.',
  criteria: [
    { number: 'galore', what: 'error over that of GaLore, each at its best rate', atMost: 0.9, over: 'every' },
    { number: 'lora', what: 'error over that of LoRA of the same rank', atMost: 0.9, over: 'every' },
    { number: 'gap', what: 'distance to the error of Adam, over that of GaLore', atMost: 0.5 },
    { number: 'bytes', what: 'bytes of states over those of GaLore', atMost: 1.01 },
    {
      number: 'alike',
      what: 'rank correlation over columns of what Adam scales by in rank 8 and in the whole space, least of three matrices',
      atLeast: 0.5,
    },
    { number: 'growth', what: 'largest growth in a step of what is outside', atMost: 1.01 + 1e-5, over: 'every' },
    { number: 'unlimited', what: 'the same without the limit', atLeast: 2 },
    {
      number: 'full',
      what: 'distance from SGD with momentum, where that is the rule, at full rank with α = 1, largest weight after 40 steps',
      atMost: 1e-5,
      over: 'every',
    },
  ],
  reports: {
    error: 'error of Fira, rank 8',
    adamError: 'error of Adam',
    galoreError: 'error of GaLore, rank 8',
    loraError: 'error of LoRA, rank 8',
    matrixError: 'error of Fira with one factor for each matrix',
    unlimitedError: 'error of Fira without the limit',
    codeError: 'error of Fira as released, which leaves α times the inside out of what is outside',
  },
  found:
    'At full rank Fira is the rule inside only where turning the axes does not change the rule, as for SGD with momentum: Adam in the axes of the ' +
    'singular vectors is another method than Adam.',
  notShown: 'LLaMA of 60 million to 7 billion parameters on C4, and fine-tuning on commonsense reasoning.',
}

const RATES = [3e-3, 1e-2, 3e-2, 0.1, 0.3, 1]
const SPACE = { rank: 8, updateGap: 40 }
/** A limit that is none, but has the norms in the state. */
const NO_LIMIT = 1e9
type Make = (lr: optim.Schedule) => optim.Optimizer
const adam = (lr: optim.Schedule | number) => optim.adam({ lr })
const galore = (lr: optim.Schedule | number) => memory.galore(adam(lr), SPACE)
const fira = (options: memory.FiraOptions) => (lr: optim.Schedule | number) =>
  memory.fira(adam(lr), { ...SPACE, ...options })

const bytesOf = (optimizer: optim.Optimizer) =>
  Object.values(optimizer.stateBytes(nn.parameters(new Student(0)))).reduce((a, b) => a + b, 0)

/** The largest growth from one step to the next of the norm of what is outside, over all matrices, by the slot that the limiter has. */
async function growth(seed: number, limiter: number, steps: number): Promise<number> {
  let before: Record<string, number> = {}
  let most = 0
  await teach(seed, fira({ limiter }), {
    lr: 0.03,
    steps,
    async onStep(_, params, state) {
      const now: Record<string, number> = {}
      for (const name of Object.keys(params)) now[name] = await state.slots.norm[name].item()
      for (const [name, size] of Object.entries(before)) if (size > 0) most = Math.max(most, now[name] / size)
      before = now
    },
  })
  return most
}

/**
 * What Adam scales the columns of a gradient by, on the same gradients once in the whole space and once in one of rank 8; the rank correlation of the
 * two. The gradients are those of a student that has been trained a little.
 */
async function alike(seed: number, before: number, steps: number): Promise<number> {
  const { params } = await teach(seed, adam, { lr: 0.01, steps: before })
  const { loss, keyOf } = lessons(seed)
  const spaces = [adam(1), memory.galore(adam(1), { ...SPACE, projType: 'left', scale: 1 })]
  const gradient = compile((p: typeof params, key: Tensor) => grad((at: typeof params) => loss(at, key))(p))
  const moves = spaces.map((o) => compile((g: typeof params, s: optim.OptimizerState) => o.update(params, g, s)))
  const states = spaces.map((o) => o.init(params))
  let [g, moved]: [typeof params, (typeof params)[]] = [params, []]
  for (let t = 1; t <= steps; t++) {
    g = gradient(params, keyOf(before + t))
    moved = moves.map((move, i) => {
      const next = move(g, states[i])
      states[i] = next.state
      return next.params
    })
  }
  const size = async (t: Tensor) => Array.from(await t.square().sum({ axis: 0 }).sqrt().read(), Number)
  const over = (a: number[], b: number[]) => a.map((v, i) => v / b[i])
  let least = 1
  for (const [name, p] of Object.entries(params)) {
    const inside = states[1].slots.basis[name].transpose().matmul(g[name])
    const [whole, small] = [await size(moved[0][name].sub(p)), await size(moved[1][name].sub(p))]
    least = Math.min(least, spearman(over(whole, await size(g[name])), over(small, await size(inside))))
  }
  return least
}

/** The largest difference from SGD with momentum inside where the space is everything. */
async function fromWhole(seed: number, steps: number): Promise<number> {
  const options = { lr: 0.1, steps }
  const sgd = (lr: optim.Schedule) => optim.sgd({ lr, momentum: 0.9 })
  const whole = (lr: optim.Schedule) => memory.fira(sgd(lr), { rank: 64, updateGap: 1000, alpha: 1, method: 'svd' })
  const [a, b] = [(await teach(seed, sgd, options)).params, (await teach(seed, whole, options)).params]
  return Math.max(...(await Promise.all(Object.keys(a).map((k) => a[k].sub(b[k]).abs().max().item()))))
}

async function compare({ seed, pick }: study.Trial, make: Make) {
  const [rates, steps] = [pick(RATES, [0.03]), pick(600, 4)]
  const at = async (m: Make, rank?: number) => (await best(seed, m, { rates, steps, rank })).error
  const [error, adamError, galoreError, loraError] = [
    await at(make),
    await at(adam),
    await at(galore),
    await at(adam, 8),
  ]
  return {
    galore: error / galoreError,
    lora: error / loraError,
    gap: (error - adamError) / (galoreError - adamError),
    error,
    adamError,
    galoreError,
    loraError,
  }
}

export async function experiment(trial: study.Trial): Promise<study.Outcome> {
  const { seed, pick } = trial
  const [rates, steps] = [pick(RATES, [0.03]), pick(600, 4)]
  const found = await compare(trial, fira({}))
  const at = async (options: memory.FiraOptions) => (await best(seed, fira(options), { rates, steps })).error
  const path = async (make: Make, lr: number, rank?: number) =>
    (await teach(seed, make, { lr, steps, rank })).losses.flatMap((y, i) => (i % pick(10, 1) ? [] : [{ x: i + 1, y }]))
  return {
    numbers: {
      ...found,
      bytes: bytesOf(fira({})(0.1)) / bytesOf(galore(0.1)),
      alike: await alike(seed, pick(100, 2), pick(20, 2)),
      growth: await growth(seed, 1.01, pick(300, 4)),
      unlimited: await growth(seed, NO_LIMIT, pick(300, 4)),
      full: await fromWhole(seed, pick(40, 3)),
      matrixError: await at({ scaling: 'matrix' }),
      unlimitedError: await at({ limiter: null }),
      codeError: await at({ residual: 'code' }),
    },
    curves: {
      Fira: await path(fira({}), 0.1),
      GaLore: await path(galore, 0.1),
      'LoRA, rank 8': await path(adam, 0.03, 8),
      Adam: await path(adam, 0.03),
    },
  }
}

export const control: study.Control = {
  what: 'what is outside of the space is scaled by 0, which is GaLore',
  fails: ['galore', 'gap'],
  experiment: async (trial) => ({ numbers: await compare(trial, galore) }),
}

export const plot: study.Plot = { x: 'step', y: 'loss', logY: true }
