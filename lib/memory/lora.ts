import { checkOptions, SteepestError } from '../errors.js'
import { rebuild } from '../graph/rebuild.js'
import { type Context, Module, namedTensors, withTensors } from '../nn/module.js'
import { add, cast, mul } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { dropout, random } from '../ops/random.js'
import { transpose, zeros } from '../ops/shape.js'
import { makeNode, nextNodeId, type Tensor } from '../tensor/tensor.js'
import { flatten } from '../transform/tree.js'
import type { Trainable } from '../train/step-graph.js'
import { checkFlag, checkRange, checkWhole, type Match, matcher, requireTaken, taker } from './options.js'
import { ownNodes, productsOf } from './sampled-rewrite.js'

/** Options of `lora`. */
export interface LoraOptions {
  /** Rank of what is added, 1 or more. Default 8. */
  rank?: number
  /** What is added is multiplied by alpha / rank, or, where `stabilized`, by alpha / √rank. Default 16. */
  alpha?: number
  /** Scale by 1/√rank, so that large ranks learn as fast as small ones (rsLoRA, arXiv 2312.03732). Default false. */
  stabilized?: boolean
  /** Part of the inputs of what is added that is dropped in training, in [0, 1). Default 0. */
  dropout?: number
  /** Which weights get an addition; by default matrices but for embeddings and heads. */
  match?: Match
  /** Other parameters that are trained as they are: a new head, norms. Default none. */
  train?: Match
  /** Seed of the first values. Default 0. */
  seed?: number
}

/** What is added to a weight [rows, cols]: B·A, times a scale. */
export interface Addition {
  /** [rank, cols], random at first. */
  a: Tensor
  /** [rows, rank], zero at first. */
  b: Tensor
}

const WHO = 'memory.lora'

/** A model with low-rank additions to some of its weights, which alone are trained. */
export class Lora<M extends Trainable> extends Module implements Trainable {
  /** Additions by the name of the weight. */
  readonly additions: Readonly<Record<string, Addition>>
  /** Parameters of the model that are trained as they are, by name: the model's own tensors. */
  readonly trained: Readonly<Record<string, Tensor>>
  /** The model as it was; but for those, its tensors do not change. */
  readonly base: M
  readonly scale: number
  readonly dropout: number

  /** @internal */
  constructor(base: M, parts: Pick<Lora<M>, 'additions' | 'trained' | 'scale' | 'dropout'>) {
    super()
    // Before the model, so that what is trained goes by these names.
    this.additions = parts.additions
    this.trained = parts.trained
    this.base = base
    this.scale = parts.scale
    this.dropout = parts.dropout
  }

  override get buffers(): readonly string[] {
    return ['base']
  }

  /** The loss of the model with what is added: each product x·W becomes x·W + scale · (x·A)·B, and W + B·A is never made. */
  loss(batch: never, ctx: Context): ReturnType<M['loss']> {
    const model = withTensors(this.base, this.trained)
    const start = nextNodeId()
    const out = model.loss(batch, ctx)
    const flat = flatten(out)
    const written = [...ctx.writes]
    const outputs = [...flat.tensors, ...written.map(([, value]) => value)]
    const { own, map } = ownNodes(outputs, start)
    const names = new Map(Object.entries(namedTensors(model).parameters).map(([name, t]) => [t, name]))
    const products = new Map(
      productsOf(own, names).flatMap((p) => (Object.hasOwn(this.additions, p.name) ? [[p.node, p] as const] : [])),
    )
    this.requireProducts(new Set([...products.values()].map((p) => p.name)))
    const graph = rebuild(
      { inputs: [], outputs },
      (node, inputs) => {
        const p = products.get(node)
        if (!p) return undefined
        const { a, b } = this.additions[p.name]
        const whole = makeNode(node.op, inputs, node.attrs, node.outputs)[0]
        const [first, second] = p.flipped ? [transpose(a), transpose(b)] : [b, a]
        const x = this.dropped(inputs[1 - p.weightAt], ctx)
        const added = p.weightAt === 1 ? matmul(matmul(x, first), second) : matmul(first, matmul(second, x))
        return [add(whole, cast(mul(added, this.scale), whole.dtype))]
      },
      map,
    )
    written.forEach(([state], i) => ctx.write(state, graph.outputs[flat.tensors.length + i]))
    return flat.unflatten(graph.outputs.slice(0, flat.tensors.length)) as ReturnType<M['loss']>
  }

  /** The model with what was learned in its weights: as fast as before, and to be saved as it was. */
  merged(): M {
    const parameters = { ...namedTensors(this.base).parameters, ...this.trained }
    const weights = Object.entries(this.additions).map(([name, { a, b }]): [string, Tensor] => {
      const w = parameters[name]
      const wide = w.dtype === 'float64' ? 'float64' : 'float32'
      const product = mul(matmul(cast(b, wide), cast(a, wide)), this.scale)
      return [name, cast(add(cast(w, wide), product), w.dtype)]
    })
    return withTensors(this.base, { ...this.trained, ...Object.fromEntries(weights) })
  }

  private dropped(x: Tensor, ctx: Context): Tensor {
    if (!ctx.training || this.dropout === 0) return x
    return dropout(x, { p: this.dropout, key: ctx.requireKey(WHO), site: ctx.site() })
  }

  private requireProducts(seen: ReadonlySet<string>): void {
    const missing = Object.keys(this.additions).filter((name) => !seen.has(name))
    if (missing.length === 0) return
    throw new SteepestError('ARGUMENT', {
      who: WHO,
      rule: 'the loss must multiply by each weight that something is added to',
      got: `no product of rows with ${missing.slice(0, 4).join(', ')}`,
      fix: 'Leave them out with `match`; products within scan, cond and checkpoint are not seen',
    })
  }
}

/**
 * The model with low-rank additions B·A to its weights, of which only A and B are trained: gradients and optimizer states are for
 * rank · (rows + columns) numbers per matrix. The model itself is not changed (but for what `train` names); `merged()` gives it with what
 * was learned.
 * Source: Hu et al., "LoRA", arXiv 2106.09685.
 *
 * @example
 * const adapted = memory.lora(model, { rank: 8, alpha: 16 })
 * await train(adapted, data, { optimizer: optim.adamw({ lr: 2e-4 }) })
 * await models.saveModel('out', adapted.merged())
 *
 * @throws SteepestError for a wrong option and where no weight is taken; at the first step, where the loss has no product with one
 */
export function lora<M extends Trainable>(model: M, options: LoraOptions = {}): Lora<M> {
  checkOptions(WHO, options, ['rank', 'alpha', 'stabilized', 'dropout', 'match', 'train', 'seed'])
  const { rank = 8, alpha = 16, stabilized = false, dropout: p = 0, match, train, seed = 0 } = options
  checkWhole(WHO, 'rank', rank)
  checkRange(WHO, 'alpha', alpha, 0, Infinity, { open: true })
  checkFlag(WHO, 'stabilized', stabilized)
  checkRange(WHO, 'dropout', p, 0, 1 - 2 ** -24)
  checkWhole(WHO, 'seed', seed, 0)
  if ('sampling' in model)
    throw new SteepestError('ARGUMENT', {
      who: WHO,
      rule: 'sampling comes after additions',
      fix: 'Say memory.sampled(memory.lora(model))',
    })
  const takes = taker(WHO, match)
  const trains = train === undefined ? () => false : matcher(WHO, train)
  const named = Object.entries(namedTensors(model).parameters)
  const taken = named.filter(([name, t]) => t.rank === 2 && takes(name, t))
  requireTaken(WHO, taken, named)
  const key = random.key(seed)
  const additions = taken.map(([name, w], i): [string, Addition] => {
    const [rows, cols] = w.shape
    // Uniform in ±1/√columns, the initializer of linear layers.
    const bound = 1 / Math.sqrt(cols)
    const wide = w.dtype === 'float64' ? 'float64' : 'float32'
    const a = random.uniform(random.foldIn(key, i), [rank, cols], { min: -bound, max: bound, dtype: wide })
    return [name, { a: cast(a, w.dtype), b: zeros([rows, rank], w.dtype) }]
  })
  return new Lora(model, {
    additions: Object.fromEntries(additions),
    trained: Object.fromEntries(named.filter(([name, t]) => trains(name, t))),
    scale: alpha / (stabilized ? Math.sqrt(rank) : rank),
    dropout: p,
  })
}
