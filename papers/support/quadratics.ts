import { type optim, random, type Tensor } from 'steepest'

/** A least-squares problem with its Hessian. */
export interface Squares {
  a: Tensor
  b: Tensor
  n: number
  hessian: Float64Array
}

/** Least squares with noise: entries of A are kept with probability `dense`, and `nonzero` numbers of x*; columns `scaled` by exp(N(0, 1)). */
export async function squares(
  seed: number,
  m: number,
  n: number,
  dense: number,
  nonzero: number,
  scaled: boolean,
): Promise<Squares> {
  const draw = (i: number, shape: number[]) =>
    random.normal(random.foldIn(random.key(seed), i), shape, { dtype: 'float64' })
  const keep = (i: number, shape: number[], p: number) =>
    random.bernoulli(random.foldIn(random.key(seed), i), p, shape).cast('float64')
  const plain = draw(0, [m, n]).mul(keep(1, [m, n], dense))
  const a = scaled ? plain.mul(draw(2, [n]).exp()) : plain
  const chosen = random
    .permutation(random.foldIn(random.key(seed), 4), n)
    .less(nonzero)
    .cast('float64')
  const b = a.matmul(draw(3, [n]).mul(chosen)).add(draw(5, [m]).mul(0.1))
  return { a, b, n, hessian: Float64Array.from(await a.transpose().matmul(a).read(), Number) }
}
/** ½ |Ax − b|². */
export const lossOf =
  ({ a, b }: Squares) =>
  (p: { x: Tensor }): Tensor =>
    a.matmul(p.x).sub(b).square().sum().mul(0.5)

/** A diagonally dominant matrix whose graph is a random tree, and a right side. */
export async function tree(seed: number, n: number): Promise<{ matrix: optim.SparseSymmetric; right: Float64Array }> {
  const numbers = await random.uniform(random.key(seed), [3 * n], { dtype: 'float64' }).read()
  const diagonal = new Float64Array(n).fill(1)
  const neighbours: [number, number][][] = Array.from({ length: n }, () => [])
  for (let i = 1; i < n; i++) {
    const [parent, weight] = [Math.floor(Number(numbers[i]) * i), Number(numbers[n + i]) - 0.5]
    for (const [u, v] of [
      [i, parent],
      [parent, i],
    ]) {
      neighbours[u].push([v, weight])
      diagonal[u] += Math.abs(weight)
    }
  }
  return { matrix: { diagonal, neighbours }, right: Float64Array.from(numbers.slice(2 * n), (v) => Number(v) - 0.5) }
}

/** Conjugate gradients to the last digits. */
export function conjugate({ diagonal, neighbours }: optim.SparseSymmetric, b: Float64Array): Float64Array {
  const times = (x: Float64Array) => x.map((v, i) => neighbours[i].reduce((s, [j, w]) => s + w * x[j], diagonal[i] * v))
  const dot = (u: Float64Array, v: Float64Array) => u.reduce((s, x, i) => s + x * v[i], 0)
  const x = new Float64Array(b.length)
  let [r, p] = [Float64Array.from(b), Float64Array.from(b)]
  let size = dot(r, r)
  for (let k = 0; k < 500 && size > 1e-26; k++) {
    const q = times(p)
    const step = size / dot(p, q)
    x.forEach((v, i) => (x[i] = v + step * p[i]))
    r = r.map((v, i) => v - step * q[i])
    const next = dot(r, r)
    p = r.map((v, i) => v + (next / size) * p[i])
    size = next
  }
  return x
}
