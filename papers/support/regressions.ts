import { drawing } from './programs.js'

export const [DIM, ROWS] = [10, 64]

/** Logistic regressions side by side, whose columns differ in size, some labels wrong. */
export interface Tasks {
  count: number
  x: Float64Array
  y: Float64Array
}
export function tasks(seed: number, count: number): Tasks {
  const draw = drawing(seed)
  const normal = () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw())
  const x = new Float64Array(count * ROWS * DIM)
  const y = new Float64Array(count * ROWS)
  for (let t = 0; t < count; t++) {
    const sizes = Array.from({ length: DIM }, () => Math.exp(1.5 * normal()))
    const truth = Array.from({ length: DIM }, (_, j) => normal() / sizes[j])
    for (let r = 0; r < ROWS; r++) {
      const row = t * ROWS + r
      let z = 0
      for (let j = 0; j < DIM; j++) z += truth[j] * (x[row * DIM + j] = sizes[j] * normal())
      y[row] = Math.sign(z) * (draw() < 0.05 ? -1 : 1) || 1
    }
  }
  return { count, x, y }
}

const softplus = (z: number) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)))

/** Loss of every task, and its gradient over the rows of a batch. */
export function look({ count, x, y }: Tasks, w: Float64Array, from: number, rows: number, g?: Float64Array): number[] {
  g?.fill(0)
  return Array.from({ length: count }, (_, t) => {
    let sum = 0
    for (let r = 0; r < rows; r++) {
      const row = t * ROWS + ((from + r) % ROWS)
      let z = 0
      for (let j = 0; j < DIM; j++) z += x[row * DIM + j] * w[t * DIM + j]
      sum += softplus(-y[row] * z) / rows
      if (!g) continue
      const slope = -y[row] / (1 + Math.exp(y[row] * z)) / rows
      for (let j = 0; j < DIM; j++) g[t * DIM + j] += slope * x[row * DIM + j]
    }
    return sum
  })
}
