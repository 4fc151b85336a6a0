import { checkOptions, SteepestError } from '../errors.js'
import { readAll } from '../graph/evaluate.js'
import { abs } from '../ops/elementwise.js'
import { mean } from '../ops/reduce.js'
import { scalar } from '../ops/shape.js'
import type { Optimizer, OptimizerState } from '../optim/optimizer.js'
import type { Tensor } from '../tensor/tensor.js'
import { compile } from '../transform/compile.js'
import { valueAndGrad } from '../transform/grad.js'

/** A model of some width, as `coordinateCheck` looks at it. */
export interface CoordinateModel<P = unknown> {
  /** A module, or any tree of tensors. */
  params: P
  /** The loss on one fixed batch, a scalar. */
  loss(params: P): Tensor
  /** Activations on that batch by name: what should neither grow nor vanish with the width. */
  probe(params: P): Record<string, Tensor>
  optimizer: Optimizer
}

/** What `coordinateCheck` found; arrays are by width. */
export interface CoordinateCheck {
  widths: readonly number[]
  /** Mean absolute value of each activation after the last step. */
  size: Readonly<Record<string, readonly number[]>>
  /** Mean absolute change of each activation since the beginning. */
  change: Readonly<Record<string, readonly number[]>>
  /** Slopes of log size and log change over log width: 0 where the width does not matter. */
  slopes: Readonly<Record<string, { size: number; change: number }>>
}

/** Slope of the least-squares line. */
function slope(x: readonly number[], y: readonly number[]): number {
  const [mx, my] = [x, y].map((v) => v.reduce((a, b) => a + b, 0) / v.length)
  const top = x.reduce((s, v, i) => s + (v - mx) * (y[i] - my), 0)
  return top / x.reduce((s, v) => s + (v - mx) ** 2, 0)
}

/**
 * The coordinate check: trains the same model at several widths for a few steps, and says how the size of each activation, and of its change,
 * depends on the width. In a sound parametrization (see `mup`) the slopes of hidden layers are about 0; one above it blows up, a change below it
 * does not learn features.
 * Source: Yang et al., arXiv 2203.03466, appendix D.1.
 * @param make the model of a width
 */
export async function coordinateCheck<P>(
  make: (width: number) => CoordinateModel<P>,
  options: { widths: readonly number[]; steps?: number },
): Promise<CoordinateCheck> {
  const who = 'nn.coordinateCheck'
  checkOptions(who, options, ['widths', 'steps'])
  const { widths, steps = 5 } = options
  if (widths.length < 2 || !widths.every((w) => Number.isSafeInteger(w) && w > 0))
    throw new SteepestError('OPTION', {
      who,
      rule: '`widths` must be two whole numbers or more',
      got: widths.join(', '),
    })
  if (!Number.isSafeInteger(steps) || steps < 1)
    throw new SteepestError('OPTION', { who, rule: '`steps` must be a whole number of 1 or more', got: String(steps) })
  const size: Record<string, number[]> = {}
  const change: Record<string, number[]> = {}
  for (const width of widths) {
    const { loss, probe, optimizer, ...model } = make(width)
    const step = compile((params: P, state: OptimizerState, lr: Tensor) => {
      const [, grads] = valueAndGrad(loss)(params)
      return optimizer.update(params, grads, state, { lr })
    })
    let at = { params: model.params, state: optimizer.init(model.params) }
    for (let t = 1; t <= steps; t++) at = step(at.params, at.state, scalar(optimizer.lrAt(t), 'float64'))
    const [before, after] = [probe(model.params), probe(at.params)]
    const names = Object.keys(after)
    const sizes = await readAll(names.map((k) => mean(abs(after[k]))))
    const changes = await readAll(names.map((k) => mean(abs(after[k].sub(before[k])))))
    names.forEach((k, i) => {
      ;(size[k] ??= []).push(Number(sizes[i][0]))
      ;(change[k] ??= []).push(Number(changes[i][0]))
    })
  }
  const logs = widths.map(Math.log)
  const slopes = Object.fromEntries(
    Object.keys(size).map((k) => [
      k,
      { size: slope(logs, size[k].map(Math.log)), change: slope(logs, change[k].map(Math.log)) },
    ]),
  )
  return { widths, size, change, slopes }
}
