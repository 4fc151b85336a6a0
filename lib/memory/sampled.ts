import { checkOptions, SteepestError } from '../errors.js'
import { type Context, namedTensors } from '../nn/module.js'
import type { SamplingDraw, SamplingMethod } from '../ops/sampling.js'
import { nextNodeId } from '../tensor/tensor.js'
import { flatten } from '../transform/tree.js'
import type { Trainable } from '../train/step-graph.js'
import { SamplingState } from './sampled-norms.js'
import { ownNodes, productsOf, sampleProducts } from './sampled-rewrite.js'

/** How weight gradients are sampled. */
export interface SampledOptions {
  /** Rows (tokens, examples) that are kept, as a part of all, in (0, 1]; never fewer than 10. Default 0.3. */
  ratio?: number
  /** The layers that are sampled, by the names of their weights: a pattern, names (or how they begin, up to a dot), or a function. Default all. */
  layers?: RegExp | readonly string[] | ((name: string) => boolean)
  /**
   * `winners` (default): rows whose part is large are kept for certain, the others drawn (WTA-CRS); `crs`: all are drawn; `topK`: the largest
   * with weight 1, which is biased.
   */
  method?: SamplingMethod
  /** `systematic` (default): at even distances, so that no row is drawn twice; `replacement`: each draw for itself, as in the paper. */
  draw?: SamplingDraw
  /** Bytes for the norms of output gradients by example, in [0, ∞); they are used where batches have `ids`. Default 16 MB. */
  cache?: number
  /** What a remembered norm counts at least, as a part of their mean, in [0, 1]: a row that did not matter then may matter now. Default 0.05. */
  floor?: number
}

const WHO = 'memory.sampled'
const LEAST = 10

function chooser(layers: SampledOptions['layers']): (name: string) => boolean {
  if (layers === undefined) return () => true
  if (typeof layers === 'function') return layers
  if (layers instanceof RegExp) return (name) => new RegExp(layers.source, layers.flags.replace(/[gy]/g, '')).test(name)
  return (name) => layers.some((l) => name === l || name.startsWith(`${l}.`))
}

function checkRange(name: string, value: number, holds: boolean, rule: string): void {
  if (!holds) throw new SteepestError('OPTION', { who: WHO, rule: `\`${name}\` must be ${rule}`, got: String(value) })
}

function checkChoice(name: string, value: string, known: readonly string[]): void {
  const rule = `\`${name}\` must be ${known.slice(0, -1).join(', ')} or ${known.at(-1)}`
  if (!known.includes(value)) throw new SteepestError('OPTION', { who: WHO, rule, got: value })
}

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
  checkOptions(WHO, options, ['ratio', 'layers', 'method', 'draw', 'cache', 'floor'])
  const { ratio = 0.3, layers, method = 'winners', draw = 'systematic', cache = 16e6, floor = 0.05 } = options
  checkRange('ratio', ratio, ratio > 0 && ratio <= 1, 'in (0, 1]')
  checkRange('cache', cache, cache >= 0 && Number.isFinite(cache), 'a number of bytes, 0 or more')
  checkChoice('method', method, ['winners', 'crs', 'topK'])
  checkChoice('draw', draw, ['systematic', 'replacement'])
  if ('sampling' in model)
    throw new SteepestError('ARGUMENT', {
      who: WHO,
      rule: 'a model can be sampled once',
      fix: 'Name all layers in one call',
    })
  checkRange('floor', floor, floor >= 0 && floor <= 1, 'in [0, 1]')
  const chosen = chooser(layers)
  const keep = (rows: number) => Math.min(rows, Math.max(LEAST, Math.floor(rows * ratio + 1e-9)))
  const exact = model.loss

  const loss = function (this: Sampled<M>, batch: never, ctx: Context): ReturnType<Trainable['loss']> {
    if (!ctx.training) return exact.call(this, batch, ctx)
    const start = nextNodeId()
    const out = exact.call(this, batch, ctx)
    const { own } = ownNodes([out.loss], start)
    const names = new Map(Object.entries(namedTensors(this).parameters).map(([name, t]) => [t, name]))
    const products = productsOf(own, names)
    const wanted = products.filter((p) => chosen(p.name))
    if (wanted.length === 0) {
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
    const sampling = { keep, norms: this.sampling.norms, method, draw, floor }
    const graph = sampleProducts({ inputs: [], outputs }, wanted, sampling, ctx, map)
    written.forEach(([state], i) => ctx.write(state, graph.outputs[flat.tensors.length + i]))
    return flat.unflatten(graph.outputs.slice(0, flat.tensors.length))
  }

  const kind = Object.create(Object.getPrototypeOf(model) as object | null, { loss: { value: loss } }) as object
  const fields = Object.entries(model).filter(([name]) => name !== 'loss')
  const sampling: { sampling: SamplingState } = { sampling: new SamplingState(cache) }
  return Object.assign(Object.create(kind) as object, Object.fromEntries(fields), sampling) as Sampled<M>
}

export type { SamplingDraw, SamplingMethod }
