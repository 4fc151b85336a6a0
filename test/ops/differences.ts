import { expect } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { add, mul } from '../../lib/ops/elementwise.js'
import { sum } from '../../lib/ops/reduce.js'
import { reshape, slice, tensor } from '../../lib/ops/shape.js'
import type { DType } from '../../lib/tensor/dtype.js'
import { type Shape, sizeOf } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad, hvp, vmap } from '../../lib/transform/index.js'

export type Fn = (...inputs: Tensor[]) => Tensor

/** Numbers in (−1, 1), the same for one seed. */
export function noise(size: number, seed: number): Float64Array {
  let state = (seed * 2654435761 + 12345) >>> 0
  return Float64Array.from({ length: size }, () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5) >>> 0
    return ((state ^ (state >>> 13)) >>> 0) / 2147483648 - 1
  })
}

export const random = (shape: Shape, seed: number, dtype: DType = 'float64'): Tensor =>
  tensor(noise(sizeOf(shape), seed), { dtype, shape })

/** Both with the same numbers, to within `bound` relative to the largest of them (and to 1). */
export async function expectClose(actual: Tensor, wanted: Tensor, bound: number): Promise<void> {
  expect(actual.shape).toEqual(wanted.shape)
  const [a, b] = await readAll([actual, wanted])
  const scale = b.reduce((m: number, x: number) => Math.max(m, Math.abs(x)), 1)
  let worst = 0
  for (let i = 0; i < a.length; i++) {
    const error = Math.abs(a[i] - b[i])
    worst = error <= worst ? worst : error
  }
  expect(worst).toBeLessThanOrEqual(bound * scale)
}

const STEP = 1e-4
const shifted = (x: Tensor, direction: Float64Array, by: number, data: ArrayLike<number>): Tensor =>
  tensor(
    Float64Array.from(data, (v, i) => v + by * direction[i]),
    { shape: x.shape },
  )

/**
 * First and second derivatives of `f` at `inputs` (float64) against central differences along random directions and, for small
 * inputs, along every axis; then `vmap` of value and gradient over each input against a loop.
 */
export async function checkDerivatives(
  f: Fn,
  inputs: readonly Tensor[],
  options: { vmap?: boolean; second?: boolean } = {},
): Promise<void> {
  const shape = f(...inputs).shape
  const weights = [random(shape, 71), random(shape, 72)]
  // Neither linear nor even in the outputs, so that every second derivative of `f` counts.
  const loss: Fn = (...xs) => {
    const y = f(...xs)
    return sum(mul(y, add(mul(y, weights[0]), weights[1])))
  }
  const data = await readAll(inputs)
  for (let at = 0; at < inputs.length; at++) {
    const x = inputs[at]
    const put = (t: Tensor) => inputs.map((other, i) => (i === at ? t : other))
    const partial = (t: Tensor) => loss(...put(t))
    const gradient = grad(partial)
    expect(gradient(x).shape).toEqual(x.shape)
    const [g] = await readAll([gradient(x)])
    const directions = [1, 2, 3].map((seed) => noise(x.size, 100 * at + seed))
    if (x.size <= 20)
      for (let i = 0; i < x.size; i++) directions.push(Float64Array.from({ length: x.size }, (_, j) => Number(i === j)))
    for (const d of x.size === 0 ? [] : directions) {
      const [up, down] = await readAll([STEP, -STEP].map((h) => partial(shifted(x, d, h, data[at]))))
      const wanted = (up[0] - down[0]) / (2 * STEP)
      const got = d.reduce((s, v, i) => s + v * g[i], 0)
      expect(Math.abs(got - wanted)).toBeLessThanOrEqual(1e-6 * Math.max(1, Math.abs(wanted)))
    }
    if ((options.second ?? true) && x.size > 0) {
      const d = directions[0]
      // Through all inputs at once: the mixed second derivatives too.
      const [up, down] = [STEP, -STEP].map((h) => inputs.map((t, i) => (i === at ? shifted(x, d, h, data[at]) : t)))
      for (let other = 0; other < inputs.length; other++) {
        const pull = (xs: readonly Tensor[]) =>
          grad((t: Tensor) => loss(...xs.map((v, i) => (i === other ? t : v))))(xs[other])
        const [high, low] = await readAll([pull(up), pull(down)])
        const direction = tensor(d, { shape: x.shape })
        const product =
          other === at
            ? hvp(partial, x, direction)
            : grad((t: Tensor) =>
                sum(
                  mul(
                    grad((v: Tensor) => loss(...inputs.map((o, i) => (i === other ? t : i === at ? v : o))))(x),
                    direction,
                  ),
                ),
              )(inputs[other])
        const [got] = await readAll([product])
        const wanted = high.map((v: number, i: number) => (v - low[i]) / (2 * STEP))
        const scale = wanted.reduce((m: number, v: number) => Math.max(m, Math.abs(v)), 1)
        got.forEach((v: number, i: number) => expect(Math.abs(v - wanted[i])).toBeLessThanOrEqual(1e-6 * scale))
      }
    }
  }
  if (options.vmap ?? true) await checkVmap((...xs) => f(...xs), inputs)
  if (options.vmap ?? true) await checkVmap((...xs) => grad(loss)(...xs), inputs)
}

/** `vmap(f)` over every non-empty set of its inputs against a loop. */
export async function checkVmap(f: Fn, inputs: readonly Tensor[], bound = 1e-12, size = 3): Promise<void> {
  for (let set = 1; set < 1 << inputs.length; set++) {
    const mapped = inputs.map((x, i) => (set & (1 << i) ? random([size, ...x.shape], 500 + i, x.dtype) : x))
    const inAxes = inputs.map((_, i) => (set & (1 << i) ? 0 : null))
    const all = vmap(f, { inAxes })(...mapped)
    for (let s = 0; s < size; s++) {
      const pick = (t: Tensor) => reshape(slice(t, [[s, s + 1]]), t.shape.slice(1))
      await expectClose(pick(all), f(...mapped.map((t, i) => (inAxes[i] === 0 ? pick(t) : t))), bound)
    }
  }
}
