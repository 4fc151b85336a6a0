import { expect } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { schedule } from '../../lib/graph/graph.js'
import { add, cast, mul } from '../../lib/ops/elementwise.js'
import { sum } from '../../lib/ops/reduce.js'
import { tensor } from '../../lib/ops/shape.js'
import { isFloat } from '../../lib/tensor/dtype.js'
import { sizeOf } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad, hvp, jvp, vjp } from '../../lib/transform/index.js'
import type { Arg, OpCase } from './check.js'
import { expectNumbers, isSmooth, numbersOf, outputsOf, tensorOf } from './check-values.js'
import { noise } from './differences.js'

const STEP = 1e-4
const BOUND = 1e-6

/**
 * A scalar of all float outputs that is neither linear nor even in them, so that every second derivative counts. The weights do not change
 * with the inputs.
 */
export function lossOf(outputs: readonly Tensor[]): Tensor {
  const parts = outputs.map((y, i) => {
    // Exact in every dtype.
    const weight = (seed: number) =>
      tensor(
        noise(sizeOf(y.shape), seed + i).map((w) => Math.round(w * 64) / 64),
        { shape: y.shape, dtype: y.dtype },
      )
    if (!isFloat(y.dtype)) return sum(cast(y, 'float64'))
    return sum(mul(y, add(mul(y, weight(71)), weight(171))))
  })
  return parts.reduce((a, b) => add(a, b))
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => Array.from(a).reduce((s, v, i) => s + v * b[i], 0)

/** First and second derivatives against central differences, and jvp against vjp, in float64. */
export async function checkDerivatives(c: OpCase, args: readonly Arg[]): Promise<void> {
  const values = args.map((a, i) => numbersOf(a, i + 1, 'float64'))
  const fixed = args.map((a, i) => tensorOf(a, values[i], 'float64'))
  const smooth = args.flatMap((a, i) => (isSmooth(a) ? [i] : []))
  const put = (xs: readonly Tensor[]) => fixed.map((t, i) => (smooth.includes(i) ? xs[smooth.indexOf(i)] : t))
  const inputs = smooth.map((i) => fixed[i])
  const loss = (xs: readonly Tensor[]): Tensor => lossOf(outputsOf(c, put(xs)))
  const directions = smooth.map((i) => noise(sizeOf(args[i].shape), 900 + i))
  const along = directions.map((d, k) => tensor(d, { shape: inputs[k].shape }))
  const moved = (k: number, direction: ArrayLike<number>, by: number): Tensor[] =>
    inputs.map((t, j) => {
      if (j !== k) return t
      const data = values[smooth[k]].data
      return tensor(
        Float64Array.from(data, (v, i) => v + by * direction[i]),
        { shape: t.shape },
      )
    })
  const gradient = (xs: readonly Tensor[]): readonly Tensor[] => grad((v: readonly Tensor[]) => loss(v))(xs)

  const gradients = gradient(inputs)
  gradients.forEach((g, k) => expect([g.dtype, ...g.shape]).toEqual(['float64', ...inputs[k].shape]))
  const g = await readAll(gradients)
  for (let k = 0; k < inputs.length; k++) {
    const size = inputs[k].size
    if (size === 0) continue
    const axes =
      size <= 24
        ? Array.from({ length: size }, (_, i) => Float64Array.from({ length: size }, (_, j) => Number(i === j)))
        : []
    for (const d of [directions[k], ...axes]) {
      const [up, down] = await readAll([loss(moved(k, d, STEP)), loss(moved(k, d, -STEP))])
      const wanted = (up[0] - down[0]) / (2 * STEP)
      const bound = BOUND * Math.max(1, Math.abs(wanted))
      expect(
        Math.abs(dot(d, g[k]) - wanted),
        `gradient of input ${smooth[k]}: ${dot(d, g[k])}, by differences ${wanted}`,
      ).toBeLessThanOrEqual(bound)
    }
  }
  if (inputs.some((t) => t.size > 0)) await checkTangents(c, put, inputs, along)
  if (c.derivatives === 'first') return
  for (let k = 0; k < inputs.length; k++) {
    if (inputs[k].size === 0) continue
    const [up, down] = [gradient(moved(k, directions[k], STEP)), gradient(moved(k, directions[k], -STEP))]
    const zero = inputs.map((t, j) => (j === k ? along[k] : tensor(new Float64Array(t.size), { shape: t.shape })))
    const seconds = hvp((v: readonly Tensor[]) => loss(v), inputs as readonly Tensor[], zero as readonly Tensor[])
    const n = inputs.length
    const all = await readAll([...up, ...down, ...seconds])
    for (let j = 0; j < n; j++) {
      const wanted = Array.from(all[j], (v, i) => (v - all[n + j][i]) / (2 * STEP))
      expectNumbers(`second derivative by inputs ${smooth[k]} and ${smooth[j]}`, all[2 * n + j], wanted, BOUND)
    }
  }
}

/** ⟨u, Jv⟩ = ⟨Jᵀu, v⟩ for random u and v. */
async function checkTangents(
  c: OpCase,
  put: (xs: readonly Tensor[]) => Tensor[],
  inputs: readonly Tensor[],
  along: readonly Tensor[],
): Promise<void> {
  const f = (xs: readonly Tensor[]): Tensor[] => outputsOf(c, put(xs)).filter((y) => isFloat(y.dtype))
  const [outputs, tangents] = jvp(f, [inputs], [along])
  const seeds = outputs.map((y, i) => tensor(noise(sizeOf(y.shape), 300 + i), { shape: y.shape }))
  const pulled = vjp(f, inputs)[1](seeds)[0]
  const all = await readAll([...tangents, ...seeds, ...pulled, ...along])
  const [m, n] = [outputs.length, inputs.length]
  let forward = 0
  let backward = 0
  for (let i = 0; i < m; i++) forward += dot(all[i], all[m + i])
  for (let i = 0; i < n; i++) backward += dot(all[2 * m + i], all[2 * m + n + i])
  expect(Math.abs(forward - backward), `jvp ${forward}, vjp ${backward}`).toBeLessThanOrEqual(
    1e-11 * Math.max(1, Math.abs(forward)),
  )
}

/** The rows that the case names stand in the graph of its value or of its first or second gradients. */
export function checkRows(c: OpCase, args: readonly Arg[]): void {
  const inputs = args.map((a, i) => tensorOf(a, numbersOf(a, i + 1, 'float64'), 'float64'))
  const smooth = args.flatMap((a, i) => (isSmooth(a) ? [i] : []))
  const outputs = outputsOf(c, inputs)
  const gradient = (xs: readonly Tensor[]): readonly Tensor[] =>
    grad((v: readonly Tensor[]) =>
      lossOf(
        outputsOf(
          c,
          inputs.map((t, i) => (smooth.includes(i) ? v[smooth.indexOf(i)] : t)),
        ),
      ),
    )(xs)
  const differentiated = c.derivatives !== 'none' && smooth.length > 0
  const at = smooth.map((i) => inputs[i])
  const first = differentiated ? gradient(at) : []
  const second =
    differentiated && c.derivatives !== 'first'
      ? grad((xs: readonly Tensor[]) =>
          gradient(xs)
            .map((g) => sum(g))
            .reduce((a, b) => add(a, b)),
        )(at)
      : []
  const names = new Set(schedule([...outputs, ...first, ...second]).map((node) => node.op.name))
  expect(c.ops.filter((name) => !names.has(name))).toEqual([])
}

/** Asking for the gradient is an error at trace time. */
export function checkNoDerivative(c: OpCase, args: readonly Arg[]): void {
  const inputs = args.map((a, i) => tensorOf(a, numbersOf(a, i + 1, 'float64'), 'float64'))
  const at = args.findIndex(isSmooth)
  const loss = (x: Tensor) =>
    lossOf(
      outputsOf(
        c,
        inputs.map((t, i) => (i === at ? x : t)),
      ),
    )
  expect(() => grad(loss)(inputs[at])).toThrow(expect.objectContaining({ code: 'NO_DERIVATIVE' }))
}
