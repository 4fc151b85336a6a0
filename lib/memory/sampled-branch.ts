import { checkOptions, SteepestError } from '../errors.js'
import { substitute } from '../graph/rebuild.js'
import type { Context } from '../nn/module.js'
import { stopGradient } from '../ops/control.js'
import { cast } from '../ops/elementwise.js'
import type { OpDef } from '../ops/define.js'
import { segmentSum, take } from '../ops/indexing.js'
import { rowNorms, sampleRows, takeScaled } from '../ops/sampling.js'
import { alias, reshape } from '../ops/shape.js'
import { showShape } from '../tensor/shape.js'
import { makeNode, type Tensor } from '../tensor/tensor.js'
import { backward } from '../transform/backward.js'
import { trace } from '../transform/trace.js'
import { keeper, type SampledOptions } from './sampled-options.js'

/** How a branch is sampled: as `SampledOptions` has them. */
export type SampledBranchOptions = Pick<SampledOptions, 'ratio' | 'method' | 'draw'>

const WHO = 'memory.sampledBranch'

/**
 * A branch that acts on each row (last axis) for itself, as feed-forward blocks do, whose backward pass is that of some of its rows: their inputs
 * are all that is kept, the branch is computed again on them, and what comes back is weighted so that every gradient, also the one that goes
 * on to the layers before, has the exact one as its mean. It saves the most, and has the most noise: use it in a model by hand,
 * `h.add(memory.sampledBranch((x) => mlp.forward(x), { ratio: 0.3 })(h, ctx))`. Values are exact, and so is all of evaluation; second derivatives are
 * those of the estimate.
 *
 * @param f must give rows for rows: [..., d] → [..., e], for any number of them, without state or random numbers
 * @throws SteepestError SHAPE where it does not
 */
export function sampledBranch(
  f: (x: Tensor) => Tensor,
  options: SampledBranchOptions = {},
): (x: Tensor, ctx: Context) => Tensor {
  checkOptions(WHO, options, ['ratio', 'method', 'draw'])
  const { keep, ...how } = keeper(WHO, options)
  return (x, ctx) => {
    const width = x.shape[x.rank - 1]
    const rows = x.size / width
    const k = keep(rows)
    if (!ctx.training || k >= rows) return f(x)
    const all = stopGradient(reshape(x, [rows, width]))
    const { indices, weights } = sampleRows(rowNorms(all), ctx.requireKey(WHO), { ...how, k, site: ctx.site() })
    const kept = take(all, indices)
    const whole = trace(WHO, f, [x])
    const some = trace(WHO, f, [kept])
    const [y, z] = [whole.graph.outputs[0], some.graph.outputs[0]]
    const fits =
      y.rank === x.rank &&
      z.rank === 2 &&
      z.shape[0] === k &&
      y.shape.slice(0, -1).join() === x.shape.slice(0, -1).join()
    if (!fits || whole.captures.some((t) => !some.captures.includes(t))) {
      throw new SteepestError('SHAPE', {
        who: WHO,
        rule: 'the branch must act on each row for itself, however many there are',
        got: `${showShape(x.shape)} → ${showShape(y.shape)}, and ${showShape(kept.shape)} → ${showShape(z.shape)}`,
      })
    }
    const op: OpDef = {
      name: 'sampledBranch',
      kind: 'composite',
      doc: 'A branch whose backward pass is that of some of its rows.',
      attrs: {},
      infer: () => [{ shape: y.shape, dtype: y.dtype }],
      define: (inputs) => [...substitute(whole.graph, [inputs[0], ...inputs.slice(4)])],
      vjp: ({ inputs: [from, own, at, weight, ...captured], grads: [g] }) => {
        const cotangent = takeScaled(reshape(g!, [rows, y.shape[y.rank - 1]]), at, weight)
        const fresh = [own, ...some.captures.map((t) => captured[whole.captures.indexOf(t)])].map(alias)
        const [dx, ...others] = backward(substitute(some.graph, fresh), [cotangent], fresh)
        const back = dx ? reshape(segmentSum(dx, at, rows), from.shape) : null
        const byCapture = whole.captures.map((t) => others[some.captures.indexOf(t)] ?? null)
        return [back && cast(back, from.dtype), null, null, null, ...byCapture]
      },
    }
    return makeNode(op, [x, kept, indices, weights, ...whole.captures], {})[0]
  }
}
