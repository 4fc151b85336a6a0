import { compile, crossEntropy, eigh, grad, nn, optim, random, scan, type study, type Tensor, tensor } from 'steepest'
import { learn } from './support/learn.js'
import { batches, prototypes } from './support/rows.js'

export const claim: study.Claim = {
  title: 'Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts',
  by: 'Chen et al., ICLR 2024',
  source: 'arXiv 2310.05898',
  says:
    'Lion with decay λ minimizes the loss under the constraint that no weight exceeds 1/λ: outside, the distance to the box shrinks at least by ' +
    '1 − ελ a step; inside, it stays, and an energy that the paper names falls.',
  criteria: [
    { number: 'bound', what: 'largest λ|x| at the end, λ of 0.5, 1 and 2', atMost: 1.001, over: 'every' },
    {
      number: 'optimal',
      what: 'loss over that of projected gradient descent on the box, less 1',
      atMost: 1e-3,
      over: 'every',
    },
    {
      number: 'phase1',
      what: 'distance to the box over (1 − ελ)^k times the first, worst step k',
      atMost: 1 + 1e-6,
      over: 'every',
    },
    {
      number: 'energy',
      what: 'share of the steps inside the box in which the energy does not rise',
      atLeast: 0.99,
      over: 'every',
    },
    { number: 'netBound', what: 'largest λ|w| of a network, λ = 5', atMost: 1.01, over: 'every' },
    { number: 'netActive', what: 'share of its weights at the bound', atLeast: 0.001, over: 'every' },
  ],
  notShown: 'ImageNet and GPT-2; functions K other than the 1-norm.',
}

const DIM = 20
const STEPS = 20_000
const ones = (value: number) => tensor(new Float64Array(DIM).fill(value))
interface Quadratic {
  f: (x: Tensor) => Tensor
  /** Largest curvature. */
  steepest: number
}

/** ½ (x − c)ᵀ H (x − c) with H = QQᵀ/n + 0.1 and a minimum that lies mostly outside of the box. */
async function quadratic(seed: number): Promise<Quadratic> {
  const draw = (i: number, shape: number[]) =>
    random.normal(random.foldIn(random.key(seed), i), shape, { dtype: 'float64' })
  const q = draw(0, [DIM, DIM])
  const diagonal = tensor(
    Float64Array.from({ length: DIM * DIM }, (_, i) => (i % (DIM + 1) === 0 ? 0.1 : 0)),
    {
      shape: [DIM, DIM],
    },
  )
  const h = q.matmul(q.transpose()).div(DIM).add(diagonal)
  const center = draw(1, [DIM]).mul(3)
  const f = (x: Tensor) => h.matmul(x.sub(center)).mul(x.sub(center)).sum().mul(0.5)
  return { f, steepest: Number((await eigh(h).values.read())[DIM - 1]) }
}

/** Positions, momenta of an optimizer along the rates of each step. */
function path(optimizer: optim.Optimizer, f: (x: Tensor) => Tensor, start: Tensor, rates: Float64Array) {
  return compile((x0: Tensor, lrs: Tensor) => {
    const first = { p: { x: x0 }, state: optimizer.init({ x: x0 }) }
    return scan(
      ({ p, state }, lr: Tensor) => {
        const next = optimizer.update(p, { x: grad(f)(p.x) }, state, { lr })
        return { carry: { p: next.params, state: next.state }, y: { x: next.params.x, m: next.state.slots.m.x } }
      },
      first,
      lrs,
    ).ys
  })(start, tensor(rates))
}

/** Three stretches of falling rates: the last oscillation is as large as the rate. */
const rates = (steps: number) =>
  Float64Array.from({ length: steps }, (_, i) => 5e-3 * (i < steps / 2 ? 1 : i < (3 * steps) / 4 ? 0.02 : 0.0005))

/** Loss and largest λ|x| of Lion, the loss of projected gradient descent, and how phase 1 went. */
async function solve(
  { f, steepest }: Quadratic,
  lambda: number,
  optimizer: optim.Optimizer,
  objective: (x: Tensor) => Tensor,
  steps: number,
) {
  const lrs = rates(steps)
  const { x } = path(optimizer, objective, ones(2 / lambda), lrs)
  const largest = await x.abs().max({ axis: 1 }).read()
  const box = 1 / lambda
  const projected = compile(
    (x0: Tensor) =>
      scan((at: Tensor) => ({ carry: at.sub(grad(f)(at).div(steepest)).clip(-box, box), y: null }), x0, null as never, {
        length: steps,
      }).carry,
  )(ones(0))
  let [phase1, bound] = [0, box]
  // The first distance is the box itself; below a millionth of it there is nothing but rounding.
  for (let k = 0; k < steps && largest[k] - box > 1e-6 * box; k++) {
    bound *= 1 - lrs[k] * lambda
    phase1 = Math.max(phase1, (largest[k] - box) / bound)
  }
  const [ours, theirs] = [await f(x.slice([[steps - 1, steps]]).reshape([DIM])).item(), await f(projected).item()]
  return { bound: largest[steps - 1] * lambda, optimal: ours / theirs - 1, phase1, largest }
}

/** Share of steps in the box in which H = γ f(x) + c(|m| − λ⟨m, x⟩) does not rise; m is the mean of −∇f, γ = (1 − β₂)/ε. */
async function energy({ f }: Quadratic, lambda: number, steps: number): Promise<number> {
  const [epsilon, beta1, beta2] = [1e-4, 0.9, 0.99]
  const lrs = new Float64Array(steps).fill(epsilon)
  const { x, m } = path(optim.lion({ weightDecay: lambda, betas: [beta1, beta2] }), f, ones(0), lrs)
  const gamma = (1 - beta2) / epsilon
  const c = beta1 / (1 + (lambda * (1 - beta1)) / gamma)
  const values = compile(
    (xs: Tensor, ms: Tensor) =>
      scan(
        (carry: Tensor, at: { x: Tensor; m: Tensor }) => {
          const toward = at.m.neg()
          const coupling = toward.abs().sum().sub(toward.mul(at.x).sum().mul(lambda))
          return { carry, y: f(at.x).mul(gamma).add(coupling.mul(c)) }
        },
        tensor(0, { dtype: 'float64' }),
        { x: xs, m: ms },
      ).ys,
  )(x, m)
  const h = await values.read()
  let falls = 0
  for (let i = 1; i < steps; i++) if (h[i] <= h[i - 1]) falls++
  return falls / (steps - 1)
}

/** A network of two layers under decay 5: its largest λ|w|, and the share of weights at the bound. */
async function network(seed: number, steps: number): Promise<{ netBound: number; netActive: number }> {
  const lambda = 5
  const { x, y } = await prototypes(seed, { n: 2048, classes: 10, perClass: 2, dim: 32 })
  const model = new nn.MLP([32, 64, 10], { seed })
  const rows = await batches(seed, 2048, 64, steps)
  const { params } = await learn({
    params: nn.parameters(model),
    loss: (p: Record<string, Tensor>, at: Tensor) =>
      crossEntropy(nn.withTensors(model, p).forward(x.take(at)), y.take(at)),
    optimizer: optim.lion({ lr: optim.schedule({ kind: 'linear', lr: 3e-3, steps }), weightDecay: lambda }),
    steps,
    batchOf: (t) => rows[t - 1],
  })
  let [largest, active, all] = [0, 0, 0]
  for (const t of Object.values(params)) {
    for (const w of await t.read()) {
      const share = Math.abs(Number(w)) * lambda
      largest = Math.max(largest, share)
      if (share > 0.99) active++
      all++
    }
  }
  return { netBound: largest, netActive: active / all }
}

export async function experiment({ seed, pick }: study.Trial): Promise<study.Outcome> {
  const problem = await quadratic(seed)
  const steps = pick(STEPS, 60)
  const found: Awaited<ReturnType<typeof solve>>[] = []
  for (const lambda of [0.5, 1, 2]) {
    found.push(await solve(problem, lambda, optim.lion({ weightDecay: lambda }), problem.f, steps))
  }
  const worst = (key: 'bound' | 'optimal' | 'phase1') => Math.max(...found.map((r) => r[key]))
  const curve = (i: number, lambda: number) =>
    Array.from({ length: pick(100, 10) }, (_, k) => ({
      x: 1 + k * pick(10, 1),
      y: Number(found[i].largest[k * pick(10, 1)]) * lambda,
    }))
  return {
    numbers: {
      bound: worst('bound'),
      optimal: worst('optimal'),
      phase1: worst('phase1'),
      energy: await energy(problem, 1, pick(STEPS, 60)),
      ...(await network(seed, pick(1500, 30))),
    },
    curves: { 'λ = 0.5': curve(0, 0.5), 'λ = 1': curve(1, 1), 'λ = 2': curve(2, 2) },
  }
}

export const control: study.Control = {
  what: 'the decay goes through the gradient, inside of the sign',
  fails: ['bound'],
  async experiment({ seed, pick }) {
    const problem = await quadratic(seed)
    const coupled = (x: Tensor) => problem.f(x).add(x.square().sum().mul(0.5))
    const { bound } = await solve(problem, 1, optim.lion({ weightDecay: 0 }), coupled, pick(STEPS, 60))
    return { numbers: { bound } }
  },
}

export const plot: study.Plot = { x: 'step', y: 'largest λ|x|' }
