import { readAll } from '../../lib/graph/evaluate.js'
import { reshape, slice } from '../../lib/ops/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad, vmap } from '../../lib/transform/index.js'
import type { Arg, OpCase } from './check.js'
import { lossOf } from './check-derivatives.js'
import { expectNumbers, isSmooth, numbersOf, outputsOf, tensorOf } from './check-values.js'

const SIZE = 3

/** Which inputs are mapped: all, and each alone. */
function subsets(args: readonly Arg[]): number[][] {
  const free = args.flatMap((a, i) => (a.shared ? [] : [i]))
  if (free.length === 0) return []
  return free.length === 1 ? [free] : [free, ...free.map((i) => [i])]
}

/** `vmap` of the case and of its gradients against a loop. */
export async function checkMapped(c: OpCase, args: readonly Arg[]): Promise<void> {
  const smooth = args.flatMap((a, i) => (isSmooth(a) ? [i] : []))
  const values = (inputs: readonly Tensor[]): readonly Tensor[] => outputsOf(c, inputs)
  const gradients = (inputs: readonly Tensor[]): readonly Tensor[] =>
    grad((xs: readonly Tensor[]) =>
      lossOf(
        outputsOf(
          c,
          inputs.map((t, i) => (smooth.includes(i) ? xs[smooth.indexOf(i)] : t)),
        ),
      ),
    )(smooth.map((i) => inputs[i]))
  for (const mapped of subsets(args)) {
    const inputs = args.map((a, i) =>
      tensorOf(a, numbersOf(a, 40 + i, 'float64', mapped.includes(i) ? [SIZE] : []), 'float64'),
    )
    const inAxes = args.map((_, i) => (mapped.includes(i) ? 0 : null))
    const differentiated = c.derivatives !== 'none' && smooth.length > 0
    for (const f of differentiated ? [values, gradients] : [values]) {
      const all = vmap((...xs: Tensor[]) => f(xs), { inAxes })(...inputs)
      const one = (t: Tensor, i: number) => reshape(slice(t, [[i, i + 1]]), t.shape.slice(1))
      const loop = Array.from({ length: SIZE }, (_, s) => f(inputs.map((t, i) => (inAxes[i] === 0 ? one(t, s) : t))))
      const numbers = await readAll([...all, ...loop.flat()])
      all.forEach((_, k) => {
        const wanted = loop.flatMap((_, s) => Array.from(numbers[all.length * (s + 1) + k]))
        const what = `${f === values ? 'output' : 'gradient'} ${k} mapped over inputs ${mapped.join(', ')}`
        expectNumbers(what, numbers[k], wanted, 10 * (c.bounds?.float64 ?? 1e-12))
      })
    }
  }
}
