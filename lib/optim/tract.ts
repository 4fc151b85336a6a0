import { checkOptions, SteepestError } from '../errors.js'
import { schedule } from '../graph/graph.js'
import { namedTensors, withTensors } from '../nn/module.js'
import { eye } from '../ops/assemble.js'
import { add, cast, div, mul, sub } from '../ops/elementwise.js'
import { solve } from '../ops/linalg.js'
import { matmul } from '../ops/matmul.js'
import { scalar, reshape, swapAxes } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type Site, sitesOf } from '../transform/factors.js'
import { type Objective, type ObjectivePart, withGradient } from './objective.js'
import { checkPositive } from './options.js'
import type { Optimizer, OptimizerState, StepContext, Stepped } from './optimizer.js'
import { needsObjective } from './sam.js'
import { smaller, stepOn } from './through.js'

/** Hyper-parameters of `tract`. */
export interface TractOptions {
  /** Added to the diagonal of the mean product of inputs, above 0. Default 0.1. */
  lambda?: number
  /** Names of the first layer's weights. By default all weights that meet, in one product or convolution, what no parameter has touched. */
  layers?: RegExp | readonly string[]
}

/** What the inputs of a weight add up to over the micro-batches of a step. */
interface Seen {
  /** Σ xᵀx, [groups, features, features]; or x itself [groups, rows, features] where there is one micro-batch of fewer rows than features. */
  x: Tensor
  rows: Tensor
}

/** How the gradient of a weight is looked at: [groups, …] with the features in the columns, or in the rows. */
interface View {
  readonly columns: boolean
  readonly gram: boolean
  readonly groups: number
}

const isChosen = (layers: TractOptions['layers'], name: string): boolean =>
  layers === undefined ||
  (layers instanceof RegExp
    ? new RegExp(layers.source, layers.flags.replace(/[gy]/g, '')).test(name)
    : layers.includes(name))

/** The tensors of a graph that a parameter has touched. */
function touched(loss: Tensor, parameters: readonly Tensor[]): ReadonlySet<Tensor> {
  const by = new Set(parameters)
  for (const node of schedule([loss])) {
    if (node.inputs.some((t) => by.has(t))) for (const t of node.outputs) by.add(t)
  }
  return by
}

/** (C + λ)⁻¹ on the side of the features, in float64: the whole point of it are directions in which C is small. */
function preconditioned(g: Tensor, { x, rows }: Seen, { columns, gram, groups }: View, lambda: number): Tensor {
  const wide = (t: Tensor) => cast(t, 'float64')
  const features = x.shape[2]
  const matrix = wide(reshape(g, columns ? [groups, -1, features] : [groups, features, -1]))
  const flat = columns ? matrix : swapAxes(matrix, 1, 2)
  const count = wide(rows)
  const diagonal = (n: number, by: Tensor | number) => mul(eye(n, { dtype: 'float64' }), by)
  let out: Tensor
  if (gram) {
    const c = add(div(wide(x), count), diagonal(features, lambda))
    out = swapAxes(solve(c, swapAxes(flat, 1, 2)), 1, 2)
  } else {
    // Fewer rows than features: (xᵀx/b + λ)⁻¹ = (1 − xᵀ (xxᵀ + bλ)⁻¹ x) / λ.
    const own = wide(x)
    const k = add(matmul(own, swapAxes(own, 1, 2)), diagonal(own.shape[1], mul(count, lambda)))
    const inside = swapAxes(solve(k, matmul(own, swapAxes(flat, 1, 2))), 1, 2)
    out = div(sub(flat, matmul(inside, own)), lambda)
  }
  return cast(reshape(columns ? out : swapAxes(out, 1, 2), g.shape), g.dtype)
}

/** What the chosen weights see of a micro-batch. */
function seenBy<P>(
  who: string,
  { layers }: TractOptions,
  part: ObjectivePart<P>,
  params: P,
  views: Map<string, View>,
): Record<string, Seen> {
  const loss = part.loss(params)
  const named = Object.entries(namedTensors(params).parameters)
  const candidates = named.filter(([name, p]) => p.rank >= 2 && isChosen(layers, name))
  const graph = { inputs: candidates.map(([, p]) => p), outputs: [loss] }
  const by = touched(
    loss,
    named.map(([, p]) => p),
  )
  const found: Record<string, Seen> = {}
  sitesOf(graph, candidates.length).forEach((sites, i) => {
    const [name] = candidates[i]
    const only = sites?.length === 1 ? sites[0] : undefined
    const seen = only && only.layout !== 'other' ? inputOf(only) : undefined
    if (!seen || (layers === undefined && by.has(seen.from))) return
    const [groups, rows, features] = seen.x.shape
    const gram = part.share !== 1 || rows >= features
    views.set(name, { columns: only!.met === 'b', gram, groups })
    const x = gram ? matmul(swapAxes(seen.x, 1, 2), seen.x) : seen.x
    found[name] = { x, rows: scalar(rows, x.dtype) }
  })
  if (Object.keys(found).length === 0) {
    throw new SteepestError('ARGUMENT', {
      who,
      rule:
        layers === undefined
          ? 'no weight meets the data in one product or convolution'
          : 'no weight in `layers` has its place in one product or convolution',
      got: named.map(([name]) => name).join(', '),
    })
  }
  return found
}

/** What meets the weight of a place: as it comes, and as rows [groups, rows, features]; nothing for a look-up. */
function inputOf(site: Site): { from: Tensor; x: Tensor } | undefined {
  const node = site.output.node
  let from: Tensor | undefined
  const factors = site.factors((t) => (from ??= t), site.output)
  if (factors.lookup || from === undefined || !node.inputs.includes(from)) return undefined
  return { from, x: factors[site.met] }
}

/**
 * TrAct: trains the activations of the first layer. Its weight gradient G is replaced by G (xᵀx / b + λ)⁻¹, what moves the activations of the
 * batch as one step of gradient descent on them would; x [b, n] are the rows that the layer sees, of all micro-batches of the step together
 * (of a convolution its patches, group by group). Other gradients stay what they are, and `base` moves all of them. No state.
 * Source: Petersen, Borgelt, Ermon 2024, "TrAct: Making First-layer Pre-Activations Trainable", arXiv 2410.23970, equation 4.
 * @throws SteepestError, at the first step, where no such weight is found
 */
export function tract(base: Optimizer, options: TractOptions = {}): Optimizer {
  const who = 'optim.tract'
  checkOptions(who, options, ['lambda', 'layers'])
  const lambda = checkPositive(who, 'lambda', options.lambda ?? 0.1)

  const changed = <P>(given: Objective<P>): Objective<P> =>
    withGradient(given, (objective) => (params) => {
      const { loss, grads } = objective.valueAndGrad(params)
      const views = new Map<string, View>()
      const seen = objective.total((part) => seenBy(who, options, part, params, views))
      const before = namedTensors(grads).parameters
      const after = Object.entries(seen).map(([name, s]): [string, Tensor] => [
        name,
        preconditioned(before[name], s, views.get(name)!, lambda),
      ])
      return { loss, grads: withTensors(grads, Object.fromEntries(after)) }
    })

  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    return stepOn(who, base, changed(objective), params, state, context)
  }

  return {
    ...base,
    name: `tract(${base.name})`,
    hyper: { ...base.hyper, lambda },
    ...smaller(base, (o) => tract(o, options)),
    update: () => needsObjective('tract'),
    step,
  }
}
