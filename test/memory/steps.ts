import { type optim, readAll, tensor, type Tensor } from '../../lib/index.js'
import { numbers } from './training.js'

export const matrix = (seed: number, rows: number, cols: number): Tensor =>
  tensor(numbers(seed, rows * cols), { shape: [rows, cols] })

export const item = async (t: Tensor): Promise<number> => Number((await t.read())[0])

/** The largest difference. */
export const far = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i])))

export interface Shot {
  weights: Record<string, Float64Array>
  slots: Record<string, Record<string, Float64Array>>
}

/** Weights and states after each of some steps, from the same weights, with gradients that are given or the same for all. */
export async function walk(
  optimizer: optim.Optimizer,
  shapes: Readonly<Record<string, readonly [number, number]>>,
  steps: number,
  grads: (t: number, name: string, shape: readonly [number, number]) => Tensor = (t, name, [m, n]) =>
    matrix(10 * t + name.length, m, n),
): Promise<Shot[]> {
  let params: Record<string, Tensor> = Object.fromEntries(
    Object.entries(shapes).map(([k, [m, n]]) => [k, matrix(1, m, n)]),
  )
  let state = optimizer.init(params)
  const out: Shot[] = []
  for (let t = 1; t <= steps; t++) {
    const g = Object.fromEntries(Object.entries(shapes).map(([k, shape]) => [k, grads(t, k, shape)]))
    ;({ params, state } = optimizer.update(params, g, state))
    const read = async (by: Readonly<Record<string, Tensor>>) => {
      const list = await readAll(Object.values(by))
      return Object.fromEntries(Object.keys(by).map((k, i) => [k, Float64Array.from(list[i])]))
    }
    const slots: Shot['slots'] = {}
    for (const [slot, by] of Object.entries(state.slots)) slots[slot] = await read(by)
    out.push({ weights: await read(params), slots })
  }
  return out
}
