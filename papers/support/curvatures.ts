import { compile, crossEntropy, grad, optim, random, scan, softmax, type Tensor, tensor, whileLoop } from 'steepest'

const DIM = 20
const TARGET = 1e-6
type OfPoint = (x: Tensor) => Tensor

/** Σ cᵢ b(xᵢ), b(x) = x²/2 + 0.15 (1 − cos 3x), which is not convex around 1; curvatures from 100/condition to 100. */
export function unequal(condition: number): OfPoint {
  const c = tensor(Float64Array.from({ length: DIM }, (_, i) => 100 * condition ** (i / (DIM - 1) - 1)))
  return (x) => x.square().div(2).add(x.mul(3).cos().neg().add(1).mul(0.15)).mul(c).sum()
}

const start = (seed: number) => random.uniform(random.key(seed), [DIM], { min: 1.5, max: 2, dtype: 'float64' })

/** A step of any optimizer on a function. */
function stepOf(optimizer: optim.Optimizer, f: OfPoint, p: { x: Tensor }, state: optim.OptimizerState) {
  const loss = (at: typeof p) => f(at.x)
  return optimizer.step ? optimizer.step(optim.objective(loss), p, state) : optimizer.update(p, grad(loss)(p), state)
}

/** Steps from a random place until the function is below 1e-6; infinite where it is not within `limit`. */
export async function stepsOf(optimizer: optim.Optimizer, f: OfPoint, seed: number, limit: number): Promise<number> {
  const { x, t } = compile((x0: Tensor) =>
    whileLoop(
      ({ x, t }) => f(x).greater(TARGET).logicalAnd(t.less(limit)),
      ({ x, state, t }) => {
        const next = stepOf(optimizer, f, { x }, state)
        return { x: next.params.x, state: next.state, t: t.add(1) }
      },
      { x: x0, state: optimizer.init({ x: x0 }), t: x0.sum().mul(0) },
    ),
  )(start(seed))
  return (await f(x).item()) <= TARGET ? await t.item() : Infinity
}

/** Newton's diagonal: for a sum over the coordinates, the Hessian times ones. */
export const exact = optim.hutchinson({ draw: ({ shape }) => tensor(new Float64Array(shape[0]).fill(1)) })

/** A curvature of 1 everywhere. */
export const constant: optim.Curvature = {
  name: 'constant',
  estimate: ({ moved }) => Object.fromEntries(moved.map(({ name, p }) => [name, p.mul(0).add(1)])),
}

/** The longest number of 200 steps on a function. */
export async function longest(optimizer: optim.Optimizer, f: OfPoint, seed: number): Promise<number> {
  const moves = compile(
    (x0: Tensor) =>
      scan(
        ({ p, state }) => {
          const next = stepOf(optimizer, f, p, state)
          return { carry: { p: next.params, state: next.state }, y: next.params.x.sub(p.x) }
        },
        { p: { x: x0 }, state: optimizer.init({ x: x0 }) },
        null as never,
        { length: 200 },
      ).ys,
  )(start(seed))
  return await moves.abs().max().item()
}

/** How far the mean of many estimates is from the diagonal of the Hessian of a linear softmax model, where Gauss–Newton's is the same. */
export async function bias(curvature: optim.Curvature, seed: number, draws: number): Promise<number> {
  const draw = (i: number, shape: number[]) =>
    random.normal(random.foldIn(random.key(seed), i), shape, { dtype: 'float64' })
  const [x, w] = [draw(0, [64, 5]), draw(1, [5, 3])]
  const labels = random.integers(random.key(seed), [64], 0, 3)
  const outputs = (p: { w: Tensor }): optim.Outputs => {
    const logits = x.matmul(p.w)
    return { loss: crossEntropy(logits, labels), logits }
  }
  const total = compile(
    (w0: Tensor) =>
      scan(
        (sum: Tensor, n: Tensor) => {
          const key = random.foldIn(random.key(seed), n)
          const params = { w: w0 }
          const objective = optim.objective(outputs as never, key) as optim.Objective<unknown>
          const moved = [{ name: 'w', p: w0, site: 0 }]
          const estimate = curvature.estimate({ objective, params, moved, key, t: n.cast('float64') })
          return { carry: sum.add(estimate.w), y: null }
        },
        w0.mul(0),
        tensor(Int32Array.from({ length: draws }, (_, i) => i)),
      ).carry,
  )(w)
  const p = softmax(x.matmul(w))
  const diagonal = x
    .square()
    .transpose()
    .matmul(p.mul(p.neg().add(1)))
    .div(64)
  const away = total.div(draws).sub(diagonal)
  return await away.square().sum().div(diagonal.square().sum()).sqrt().item()
}
