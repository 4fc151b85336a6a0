import { type DType, random } from 'steepest'

/** Standard normal numbers of a seed, read. */
export async function normals(seed: number, shape: readonly number[], dtype: DType = 'float32'): Promise<Float64Array> {
  return Float64Array.from((await random.normal(random.key(seed), shape, { dtype }).read()) as Float64Array)
}

/** The slope of the line of least squares through the logarithms of points above 0. */
export function logSlope(points: readonly { x: number; y: number }[]): number {
  const at = points.map(({ x, y }) => [Math.log(x), Math.log(y)])
  const [mx, my] = [0, 1].map((i) => at.reduce((s, p) => s + p[i], 0) / at.length)
  const top = at.reduce((s, [x, y]) => s + (x - mx) * (y - my), 0)
  return top / at.reduce((s, [x]) => s + (x - mx) ** 2, 0)
}

/** The geometric mean of numbers above 0. */
export const geometricMean = (values: readonly number[]): number =>
  Math.exp(values.reduce((s, v) => s + Math.log(v), 0) / values.length)

/** The rank correlation of two lists of numbers. */
export function spearman(a: readonly number[], b: readonly number[]): number {
  const ranks = (list: readonly number[]) => {
    const order = [...list.keys()].sort((i, j) => list[i] - list[j])
    const of = new Array<number>(list.length)
    order.forEach((i, rank) => (of[i] = rank))
    return of
  }
  const [x, y] = [ranks(a), ranks(b)]
  const middle = (a.length - 1) / 2
  const top = x.reduce((s, v, i) => s + (v - middle) * (y[i] - middle), 0)
  return top / x.reduce((s, v) => s + (v - middle) ** 2, 0)
}

/** Kendall's rank correlation of two lists of numbers, with ties (τ-b). */
export function kendall(a: readonly number[], b: readonly number[]): number {
  let [sum, da, db] = [0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    for (let j = 0; j < i; j++) {
      const [x, y] = [Math.sign(a[i] - a[j]), Math.sign(b[i] - b[j])]
      sum += x * y
      da += x * x
      db += y * y
    }
  }
  return sum / Math.sqrt(da * db)
}

/** Variance of one example's weighted gradient, from the norms of all and the squared norm of their mean: Σ |g|² / (n² p) − |mean|². */
export const varianceOf = (norms: readonly number[], p: ArrayLike<number>, square: number): number =>
  norms.reduce((s, g, i) => s + (g > 0 ? g ** 2 / p[i] : 0), 0) / norms.length ** 2 - square

/** Numbers over their sum. */
export const shares = (scores: readonly number[]): number[] => {
  const total = scores.reduce((a, b) => a + b, 0)
  return scores.map((s) => s / total)
}
