import { compile, nn, type optim, random, scan, type Tensor, tensor } from 'steepest'
import { keyOf } from './keys.js'
import { learn } from './learn.js'

type Matrix = readonly (readonly number[])[]
const times = (a: Matrix, b: Matrix) => a.map((row) => b[0].map((_, j) => row.reduce((s, v, k) => s + v * b[k][j], 0)))
const turned = (a: Matrix) => a[0].map((_, j) => a.map((row) => row[j]))
const plus = (a: Matrix, b: Matrix, by = 1) => a.map((row, i) => row.map((v, j) => v + by * b[i][j]))
const identity = (n: number, scale = 1) =>
  Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => (i === j ? scale : 0)))
const inverse2 = ([[a, b], [c, d]]: Matrix) => {
  const det = a * d - b * c
  return [
    [d / det, -b / det],
    [-c / det, a / det],
  ]
}

const DT = 0.2
/** A point in the plane, pushed away from the middle and turned: x' = A x + B u of place and speed. */
const A = [
  [1, 0, DT, 0],
  [0, 1, 0, DT],
  [0.3 * DT, 0, 1, 0.5 * DT],
  [0, 0.3 * DT, -0.5 * DT, 1],
]
const B = [
  [0, 0],
  [0, 0],
  [DT, 0],
  [0, DT],
]

/** The gain of the linear-quadratic regulator with costs |x|² + 0.1 |u|², by the iteration of Riccati. */
function gain(): Matrix {
  let value: Matrix = identity(4)
  let k: Matrix = []
  for (let i = 0; i < 500; i++) {
    const seen = times(turned(B), value)
    k = times(inverse2(plus(times(seen, B), identity(2, 0.1))), times(seen, A))
    value = plus(times(turned(A), times(value, plus(A, times(B, k), -1))), identity(4))
  }
  return k
}

const matrix = (m: Matrix): Tensor => tensor(Float32Array.from(m.flat()), { shape: [m.length, m[0].length] })
/** Walks for each look at the expert, and steps of a walk. */
const [WALKS, LENGTH] = [32, 20]

/**
 * DAgger: in each round the policy as it is walks, the expert is asked what it would have done at every place, and the policy takes one step of
 * the optimizer. The expert is a linear-quadratic regulator, the policy a network of one hidden layer, the loss ½ |π(x) − u|².
 * @returns the loss on the walks of each round, before its step
 */
export async function imitate(optimizer: optim.Optimizer, seed: number, rounds: number): Promise<number[]> {
  const model = new nn.MLP([4, 32, 2], { activation: 'tanh', seed })
  const [a, b, k] = [A, B, gain()].map((m) => matrix(turned(m)))
  type Weights = Record<string, Tensor>
  const policy = (p: Weights, x: Tensor) => nn.withTensors(model, p).forward(x)
  const walks = compile((p: Weights, start: Tensor, key: Tensor) => {
    const next = (x: Tensor, t: Tensor) => {
      const pushed = policy(p, x).clip(-15, 15)
      const drift = random.normal(random.foldIn(key, t), x.shape).mul(0.05)
      return { carry: x.matmul(a).add(pushed.matmul(b)).add(drift).clip(-5, 5), y: x }
    }
    return scan(next, start, tensor(Int32Array.from({ length: LENGTH }, (_, i) => i))).ys.reshape([-1, 4])
  })
  const look = (p: Weights, round: number) => {
    const keys = (['data', 'other'] as const).map((use) => random.foldIn(keyOf(seed, use), round))
    const x = walks(p, random.normal(keys[0], [WALKS, 4]), keys[1])
    return { x, u: x.matmul(k).neg() }
  }
  let seen = look(nn.parameters(model), 1)
  const { losses } = await learn({
    params: nn.parameters(model),
    loss: (p: Weights, { x, u }: typeof seen) => {
      const logits = policy(p, x)
      return { loss: logits.sub(u).square().sum({ axis: 1 }).mean().mul(0.5), logits }
    },
    optimizer,
    steps: rounds,
    batchOf: () => seen,
    seed,
    onStep: (round, p) => {
      seen = look(p, round + 1)
    },
  })
  return losses
}
