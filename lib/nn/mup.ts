import { checkOptions, nearest, SteepestError } from '../errors.js'
import { mul } from '../ops/elementwise.js'
import type { ParameterGroup } from '../optim/optimizer.js'
import { showShape } from '../tensor/shape.js'
import { Embedding } from './embedding.js'
import { namedTensors, withTensors } from './module.js'

/**
 * What a parameter is to a network whose width grows: `input` makes numbers of the width from a fixed number of inputs (biases and gains
 * too), `hidden` from as many, `output` makes a fixed number; `fixed` has no axis that grows.
 */
export type WidthKind = 'input' | 'hidden' | 'output' | 'fixed'

/** How a model is put into the maximal update parametrization. */
export interface MupOptions {
  /** The same model at the width for which rates are tuned; axes that differ from it are those that grow. */
  base: unknown
  /** Whose steps are scaled: those of plain or momentum SGD (default), or those of Adam and its kin, which do not know the gradient's size. */
  optimizer?: 'sgd' | 'adam'
  /** What the weights are as they come: `fanIn` (default) falls with 1/√inputs, as `nn.Linear` begins; `constant` is the same at any width (GPT-2). */
  init?: 'fanIn' | 'constant'
  /** Kinds of parameters whose axes tell another story than [out, in, …], by name. */
  kinds?: Readonly<Record<string, WidthKind>>
}

/** A model whose steps move its features as far at any width. */
export interface Mup<M> {
  /** The model, its weights scaled. */
  model: M
  /** Learning rates by parameter, for the optimizer's `groups`. */
  groups: ParameterGroup[]
  kinds: Readonly<Record<string, WidthKind>>
  /** By parameter: what its first value and its learning rate were multiplied by. */
  scales: Readonly<Record<string, { init: number; lr: number }>>
}

/** The object that holds the parameter of a path. */
const ownerOf = (model: unknown, path: string): unknown =>
  path
    .split('.')
    .slice(0, -1)
    .reduce((at, name) => (at as Record<string, unknown> | undefined)?.[name], model)

/**
 * Puts a model into the maximal update parametrization (µP): with `model` and `groups` in place of the model and equal rates, every layer's
 * features move by the same amount at any width, so that a learning rate tuned at the base width stays good. Scaled are only first values and
 * rates; a model that divides attention scores by √depth should divide them by depth, and tied weights count as what their first name is.
 * Source: Yang, Hu, "Feature learning in infinite-width neural networks", arXiv 2011.14522; for Adam: Yang et al., arXiv 2203.03466, table 3.
 * @throws SteepestError where the base has other parameters, or axes of another number
 */
export function mup<M>(model: M, options: MupOptions): Mup<M> {
  const who = 'nn.mup'
  checkOptions(who, options, ['base', 'optimizer', 'init', 'kinds'])
  const { base, optimizer = 'sgd', init = 'fanIn', kinds: given = {} } = options
  if (optimizer !== 'sgd' && optimizer !== 'adam')
    throw new SteepestError('OPTION', { who, rule: '`optimizer` must be sgd or adam', got: String(optimizer) })
  if (init !== 'fanIn' && init !== 'constant')
    throw new SteepestError('OPTION', { who, rule: '`init` must be fanIn or constant', got: String(init) })
  const parameters = namedTensors(model).parameters
  const small = namedTensors(base).parameters
  for (const name of Object.keys(given)) {
    if (name in parameters) continue
    const near = nearest(name, Object.keys(parameters))
    const fix = near ? `Did you mean \`${near}\`?` : undefined
    throw new SteepestError('OPTION', { who, rule: `\`kinds\`: there is no parameter \`${name}\``, fix })
  }
  const kinds: Record<string, WidthKind> = {}
  const scales: Record<string, { init: number; lr: number }> = {}
  for (const [name, p] of Object.entries(parameters)) {
    const b = small[name]
    if (!b || b.rank !== p.rank) {
      throw new SteepestError('ARGUMENT', {
        who: `${who}: ${name}`,
        rule: 'the base must be the same model at another width',
        got: b ? `${showShape(b.shape)} for ${showShape(p.shape)}` : 'no such parameter in it',
      })
    }
    const grows = p.shape.map((d, i) => d / b.shape[i])
    // The width grows by one factor; where a layer has several, its inputs count for a weight and its outputs for what has none.
    const [outputs = 1, inputs = 1] = grows
    const byShape = (): WidthKind => {
      if (grows.every((g) => g === 1)) return 'fixed'
      if (ownerOf(model, name) instanceof Embedding || p.rank < 2) return 'input'
      return inputs === 1 ? 'input' : outputs === 1 ? 'output' : 'hidden'
    }
    const kind = given[name] ?? byShape()
    kinds[name] = kind
    const by = kind === 'input' ? Math.max(...grows) : inputs === 1 ? outputs : inputs
    scales[name] = scaleOf(kind, by, optimizer, init)
  }
  const scaled = Object.entries(parameters).map(([name, p]) => [
    name,
    scales[name].init === 1 ? p : mul(p, scales[name].init),
  ])
  const groups = Object.entries(scales)
    .filter(([, { lr }]) => lr !== 1)
    .map(([name, { lr }]): ParameterGroup => ({ match: [name], lrScale: lr }))
  return { model: withTensors(model, Object.fromEntries(scaled)), groups, kinds, scales }
}

/** What first value and rate of a parameter are multiplied by when the width is `by` times that of the base. */
function scaleOf(kind: WidthKind, by: number, optimizer: 'sgd' | 'adam', init: 'fanIn' | 'constant') {
  const sgd = optimizer === 'sgd'
  const root = 1 / Math.sqrt(by)
  switch (kind) {
    case 'fixed':
      return { init: 1, lr: 1 }
    case 'input':
      return { init: 1, lr: sgd ? by : 1 }
    case 'hidden':
      return { init: init === 'fanIn' ? 1 : root, lr: sgd ? 1 : 1 / by }
    default:
      return { init: init === 'fanIn' ? root : 1 / by, lr: 1 / by }
  }
}

/** Exponents of a parametrization by layer, from the first to the last: Wˡ = n^−a · wˡ, wˡ begins as N(0, n^−2b), the rate is η n^−c. */
export interface AbcExponents {
  a: readonly number[]
  b: readonly number[]
  c: number
}

/**
 * What a network does as its width n grows, by the exponents of its parametrization: features change by n^−r, so that r = 0 learns features
 * and r > 0 is the kernel regime; r < 0 blows up.
 * Source: Yang, Hu, arXiv 2011.14522, definition 3.2.
 */
export function abcRegime({ a, b, c }: AbcExponents): { r: number; regime: 'features' | 'kernel' | 'unstable' } {
  if (a.length < 2 || a.length !== b.length) {
    throw new SteepestError('ARGUMENT', {
      who: 'nn.abcRegime',
      rule: '`a` and `b` must have one number for each of two layers or more',
      got: `${a.length} and ${b.length}`,
    })
  }
  const last = a.length - 1
  const below = Math.min(...a.slice(0, last).map((x, i) => 2 * x + (i === 0 ? 1 : 0)))
  const r = Math.min(a[last] + b[last], 2 * a[last] + c) + c - 1 + below
  const near = Math.abs(r) < 1e-9 ? 0 : r
  return { r: near, regime: near === 0 ? 'features' : near > 0 ? 'kernel' : 'unstable' }
}
