import { checkOptions, SteepestError } from '../errors.js'
import { type Context, namedTensors } from '../nn/module.js'
import { nextNodeId } from '../tensor/tensor.js'
import { flatten } from '../transform/tree.js'
import type { Trainable } from '../train/step-graph.js'
import { attentionProducts } from './sampled-attention.js'
import { checkRange, chooser, keeper, type SampledOptions } from './sampled-options.js'
import { SamplingState } from './sampled-norms.js'
import { ownNodes, parameterOf, productsOf, sampleProducts } from './sampled-rewrite.js'

const WHO = 'memory.sampled'

/** A model that is trained with sampled weight gradients: the fields and methods of the one that it was made of, and their tensors. */
export type Sampled<M> = M & { readonly sampling: SamplingState }

/**
 * The same model with weight gradients that are estimated from some of the rows of each linear layer's input: what a layer keeps for the
 * backward pass is one buffer of these rows. Outputs, input gradients and bias gradients are exact, and the estimates have the exact
 * gradients as their mean. Evaluation is not changed; parameters keep their names, and are the tensors of `model`.
 *
 * Rows are drawn in proportion to ‖x‖ times what the norm of their output gradient was when the example was last seen (with `ids` in the
 * batch). Products with one input share one choice. `samplingVariance` of a step's metrics is the expected squared error of its gradient,
 * a little too large: the part ‖M‖²/k of the drawn rows is left in.
 *
 * Sees the products that `model.loss` makes in the open, of a matrix of rows and a parameter; those inside of `scan`, `cond` and
 * `checkpoint` stay exact.
 * Source: Liu et al. 2023, arXiv 2305.15265.
 *
 * @throws SteepestError OPTION for a value out of its range; ARGUMENT, at the first step, where no product has a weight in `layers`
 */
export function sampled<M extends Trainable>(model: M, options: SampledOptions = {}): Sampled<M> {
  checkOptions(WHO, options, ['ratio', 'layers', 'method', 'draw', 'cache', 'floor', 'attention'])
  const { layers, cache = 16e6, floor = 0.05, attention = false } = options
  const how = keeper(WHO, options)
  checkRange(WHO, 'cache', cache, cache >= 0 && Number.isFinite(cache), 'a number of bytes, 0 or more')
  checkRange(WHO, 'floor', floor, floor >= 0 && floor <= 1, 'in [0, 1]')
  if ('sampling' in model) {
    throw new SteepestError('ARGUMENT', {
      who: WHO,
      rule: 'a model can be sampled once',
      fix: 'Name all layers in one call',
    })
  }
  const chosen = chooser(layers)
  const exact = model.loss

  const loss = function (this: Sampled<M>, batch: never, ctx: Context): ReturnType<Trainable['loss']> {
    if (!ctx.training) return exact.call(this, batch, ctx)
    const start = nextNodeId()
    const out = exact.call(this, batch, ctx)
    const { own } = ownNodes([out.loss], start)
    const names = new Map(Object.entries(namedTensors(this).parameters).map(([name, t]) => [t, name]))
    const products = productsOf(own, names)
    const wanted = products.filter((p) => chosen(p.name))
    const pairs = attention ? attentionProducts(own, (t) => parameterOf(t, names) !== undefined) : []
    if (wanted.length === 0 && pairs.length === 0) {
      throw new SteepestError('ARGUMENT', {
        who: WHO,
        rule: 'no product of the loss has a weight in `layers`',
        got: products.length > 0 ? `weights ${products.map((p) => p.name).join(', ')}` : 'no product with a parameter',
      })
    }
    const flat = flatten(out)
    const written = [...ctx.writes]
    const outputs = [...flat.tensors, ...written.map(([, value]) => value)]
    const { map } = ownNodes(outputs, start)
    const sampling = { ...how, norms: this.sampling.norms, floor }
    const graph = sampleProducts({ inputs: [], outputs }, { products: wanted, pairs }, sampling, ctx, map)
    written.forEach(([state], i) => ctx.write(state, graph.outputs[flat.tensors.length + i]))
    return flat.unflatten(graph.outputs.slice(0, flat.tensors.length))
  }

  const kind = Object.create(Object.getPrototypeOf(model) as object | null, { loss: { value: loss } }) as object
  const fields = Object.entries(model).filter(([name]) => name !== 'loss')
  const sampling: { sampling: SamplingState } = { sampling: new SamplingState(cache) }
  return Object.assign(Object.create(kind) as object, Object.fromEntries(fields), sampling) as Sampled<M>
}
