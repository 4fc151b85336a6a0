import { checkOptions, SteepestError } from '../errors.js'
import { type Context, Module, namedTensors, withTensors } from '../nn/module.js'
import { add, cast, mul } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import { ones, reshape, slice, zeros } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { checkpoint } from '../transform/checkpoint.js'
import type { Trainable } from '../train/step-graph.js'
import { type Project, PROJECTIONS } from './intrinsic-projections.js'
import { checkChoice, checkFlag, checkWhole, type Match, matcher, numbered, requireTaken } from './options.js'
import { constantKey } from './small.js'

/** Options of `intrinsic`. */
export interface IntrinsicOptions {
  /** Numbers that are trained (d), 1 or more; with `layerwise`, the scales of layers are some of them. */
  dim: number
  /**
   * The map from coordinates to weights: `fastfood` (default), whose matrix is never made; `dense`, normal numbers of which D · dim are drawn at
   * every step, for small models; `sparse`, 1/√D of these; or a linear function.
   */
  projection?: 'fastfood' | 'dense' | 'sparse' | Project
  /** Learn a factor for each layer too (SAID); a layer is what stands under one number in the names, else under one module. Default false. */
  layerwise?: boolean
  /** Which parameters are moved along the projection. Default all. */
  match?: Match
  /** Other parameters, which are trained as they are: a new head. They are not counted in `dim`. Default none. */
  train?: Match
  /** Seed of the projection. Default 0. */
  seed?: number
}

const WHO = 'memory.intrinsic'

/** The layer that a parameter belongs to. */
const layerOf = (name: string): string => numbered(name) ?? name.replace(/(^|\.)[^.]*$/, '')

/** What a model in few dimensions is made of. */
interface Parts {
  readonly names: readonly string[]
  readonly layers: readonly string[]
  readonly project: Project
  readonly total: number
  readonly seed: number
}

/** A model whose weights are θ₀ + P·d, of which only d is trained. */
export class Intrinsic<M extends Trainable> extends Module implements Trainable {
  /** d, zero at first. */
  readonly coordinates: Tensor
  /** The factor of each layer, 1 at first, where `layerwise`. */
  readonly scales: Tensor | null
  /** Parameters of the model that are trained as they are, by name: the model's own tensors. */
  readonly trained: Readonly<Record<string, Tensor>>
  /** The model as it was; but for what is trained as it is, its tensors do not change. */
  readonly base: M
  private readonly parts: Parts

  /** @internal */
  constructor(base: M, at: Pick<Intrinsic<M>, 'coordinates' | 'scales' | 'trained'>, parts: Parts) {
    super()
    // Before the model, so that what is trained goes by these names.
    this.coordinates = at.coordinates
    this.scales = at.scales
    this.trained = at.trained
    this.base = base
    this.parts = parts
  }

  override get buffers(): readonly string[] {
    return ['base']
  }

  loss(batch: never, ctx: Context): ReturnType<M['loss']> {
    return this.merged().loss(batch, ctx) as ReturnType<M['loss']>
  }

  /** The model with what was learned in its weights: as fast as before, and to be saved as it was. */
  merged(): M {
    const { names, layers, project, total, seed } = this.parts
    const start = namedTensors(this.base).parameters
    const root = constantKey(seed)
    const moved = names.map((name, i): [string, Tensor] => {
      const w = start[name]
      const { size } = w
      // Drawn again in the backward pass, from keys that are operands: nothing of P lives from one to the other.
      const along = checkpoint((d: Tensor, key: Tensor, shared: Tensor) => project(d, { size, total, key, shared }))(
        this.coordinates,
        random.foldIn(root, i + 1),
        root,
      )
      const layer = layers.indexOf(layerOf(name))
      const step = this.scales ? mul(along, slice(this.scales, [[layer, layer + 1]])) : along
      return [name, cast(add(cast(w, step.dtype), reshape(step, w.shape)), w.dtype)]
    })
    return withTensors(this.base, { ...this.trained, ...Object.fromEntries(moved) })
  }
}

/**
 * The model with weights θ₀ + P·d, θ₀ being those that it has and P a random matrix [D, dim] of entries with variance 1/D, so that
 * |P·d| is |d| in the mean; d alone is trained, by any optimizer, and its states are as few. `layerwise` has θ₀ + λ·P·d with a λ for every layer. P
 * comes from the seed and is drawn anew where it is needed; it is in no checkpoint. `merged()` is the model with what was learned.
 * The smallest dim with 90 % of what training all weights gives is called the intrinsic dimension of a task.
 * Source: Li et al. 2018, arXiv 1804.08838; Aghajanyan et al. 2021, arXiv 2012.13255, equations 1 to 3.
 *
 * @example
 * const small = memory.intrinsic(model, { dim: 200 })
 * await train(small, data, { optimizer: optim.adam({ lr: 0.1 }) })
 * await models.saveModel('out', small.merged())
 *
 * @throws SteepestError for a wrong option, where no parameter is taken, and where `dim` leaves nothing beside the scales of layers
 */
export function intrinsic<M extends Trainable>(model: M, options: IntrinsicOptions): Intrinsic<M> {
  checkOptions(WHO, options, ['dim', 'projection', 'layerwise', 'match', 'train', 'seed'])
  const { dim, projection = 'fastfood', layerwise = false, match, train, seed = 0 } = options
  checkWhole(WHO, 'dim', dim)
  checkFlag(WHO, 'layerwise', layerwise)
  checkWhole(WHO, 'seed', seed, 0)
  if (typeof projection === 'string') checkChoice(WHO, 'projection', projection, Object.keys(PROJECTIONS))
  if ('sampling' in model)
    throw new SteepestError('ARGUMENT', {
      who: WHO,
      rule: 'a model with sampled gradients has no use for it',
      got: 'memory.sampled',
      fix: 'Give the model itself',
    })
  const trains = train === undefined ? () => false : matcher(WHO, train)
  const takes = match === undefined ? () => true : matcher(WHO, match)
  const named = Object.entries(namedTensors(model).parameters)
  const taken = named.filter(([name, t]) => t.size > 0 && takes(name, t) && !trains(name, t))
  requireTaken(WHO, taken, named)
  const layers = [...new Set(taken.map(([name]) => layerOf(name)))]
  const coordinates = dim - (layerwise ? layers.length : 0)
  if (coordinates < 1) {
    throw new SteepestError('OPTION', {
      who: WHO,
      rule: '`dim` must be more than the number of layers, each of which has a scale',
      got: `${dim}, with ${layers.length} layers`,
    })
  }
  const dtype = taken.some(([, t]) => t.dtype === 'float64') ? 'float64' : 'float32'
  return new Intrinsic(
    model,
    {
      coordinates: zeros([coordinates], dtype),
      scales: layerwise ? ones([layers.length], dtype) : null,
      trained: Object.fromEntries(named.filter(([name, t]) => trains(name, t))),
    },
    {
      names: taken.map(([name]) => name),
      layers,
      project: typeof projection === 'function' ? projection : PROJECTIONS[projection],
      total: taken.reduce((n, [, t]) => n + t.size, 0),
      seed,
    },
  )
}
