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
