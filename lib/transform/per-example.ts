import { checkOptions, SteepestError } from '../errors.js'
import { rebuild } from '../graph/rebuild.js'
import { wide } from '../ops/batching.js'
import { add, maximum, square, sqrt } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { sum } from '../ops/reduce.js'
import { alias, onesLike, reshape, swapAxes, zeros, zerosLike } from '../ops/shape.js'
import { isFloat } from '../tensor/dtype.js'
import { showAval } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { backward } from './backward.js'
import { type Factors, innerProduct, openProducts, type Site, sitesOf } from './factors.js'
import { grad } from './grad.js'
import { scan } from './loop.js'
import { trace } from './trace.js'
import { flatten } from './tree.js'
import { vmap } from './vmap.js'

/**
 * The gradient of `f(params, example)` for every example of a batch: a tree like `params` with a new axis 0.
 *
 * @param f the loss of one example, a scalar
 */
export function perExampleGrads<P, B>(f: (params: P, example: B) => Tensor): (params: P, batch: B) => P {
  return (params, batch) =>
    vmap((p: P, example: B) => grad((q: P) => f(q, example))(p), { inAxes: [null, 0] })(params, batch)
}

/** How norms and products of gradients by example are found. */
export interface PerExampleOptions {
  /**
   * `gram`: from products of the positions of examples; no gradient of a linear, convolution or embedding weight is ever made.
   * `gradients`: from the gradients themselves, one of each weight and example. `auto` (default): for every weight, norms go the way that
   * holds fewer numbers (Bu, Mao, Xu, "Scalable and efficient training of large convolutional neural networks with differential
   * privacy", 2022), products the way of fewer multiplications. Biases, norms and whatever else does not meet the example in such a
   * product always go by their gradients.
   */
  method?: 'auto' | 'gram' | 'gradients'
}

/** What is known of the gradients of every example: of all parameters together, and of each. */
export interface PerExample<P> {
  readonly total: Tensor
  /** A tree like the parameters. */
  readonly each: P
}

/** The gradient of one weight by one example: as a sum of factors, or itself. */
type Part = { factors: Factors[] } | { gradient: Tensor }

/** Whether the gradient of parameter i, which is used at `sites` only, is taken as factors. */
type Choice = (sites: readonly Site[], i: number) => boolean

const total = (list: readonly number[]): number => list.reduce((s, n) => s + n, 0)
const positionsOf = (sites: readonly Site[]): number => total(sites.map((site) => site.positions))

/** Two tables of positions by positions, or the gradient. */
const holdsLess: Choice = (sites) => 2 * positionsOf(sites) ** 2 <= sites[0].size

/** Products of `n` examples by `m`: of all pairs of positions, or of gradients that have to be made. */
const multipliesLess =
  (n: number, m: number): Choice =>
  (sites) => {
    const pairs = positionsOf(sites) * total(sites.map((site) => site.positions * site.width))
    return n * m * pairs <= ((n + m) * positionsOf(sites) + n * m) * sites[0].size
  }

function choiceOf(who: string, options: PerExampleOptions, auto: Choice): Choice {
  checkOptions(who, options, ['method'])
  const { method = 'auto' } = options
  if (!['auto', 'gram', 'gradients'].includes(method))
    throw new SteepestError('OPTION', { who, rule: '`method` must be auto, gram or gradients', got: method })
  return method === 'auto' ? auto : () => method === 'gram'
}

/** A function that gives the parts of the gradient of one example, for the float tensors of `params`. */
function partsOf<B>(
  who: string,
  f: (params: Tensor[], example: B) => Tensor,
  choice: Choice,
): (params: Tensor[], example: B) => Part[] {
  return (params, example) => {
    const { graph, captures, out } = trace(who, f, [params, example])
    const loss: unknown = out.unflatten(graph.outputs)
    if (!(loss instanceof Tensor) || loss.size !== 1 || !isFloat(loss.dtype)) {
      throw new SteepestError('SHAPE', {
        who,
        rule: 'the loss of one example must be one float number',
        got: loss instanceof Tensor ? showAval(loss) : typeof loss,
        fix: 'Reduce it, for example with mean()',
      })
    }
    const open = openProducts(graph)
    const chosen = sitesOf(open, params.length).map((sites, i) =>
      sites && sites.length > 0 && choice(sites, i) ? sites : undefined,
    )
    const map = new Map<Tensor, Tensor>()
    const given = [...params.map(alias), ...flatten(example).tensors, ...captures]
    open.inputs.forEach((t, i) => map.set(t, given[i]))
    const [value] = rebuild(open, () => undefined, map).outputs
    const at = (t: Tensor): Tensor => map.get(t) ?? t
    const asked = chosen.flatMap((sites, i) => (sites ? sites.map((site) => at(site.output)) : [given[i]]))
    const grads = backward([value], [onesLike(value)], asked)
    let next = 0
    return chosen.map((sites, i): Part => {
      if (!sites) return { gradient: grads[next++] ?? zerosLike(given[i]) }
      const factors = sites.flatMap((site) => {
        const gradient = grads[next++]
        return gradient ? [site.factors(at, gradient)] : []
      })
      return factors.length > 0 ? { factors } : { gradient: zerosLike(given[i]) }
    })
  }
}

const addUp = (parts: readonly Tensor[]): Tensor => parts.reduce((s, t) => add(s, t))

/** The different float tensors of a tree, and what makes a tree of one result for each. A tensor that occurs twice is one parameter. */
function parametersOf<P>(who: string, tree: P): { list: Tensor[]; fill: (of: readonly Tensor[], other: Tensor) => P } {
  const flat = flatten(tree)
  const list = [...new Set(flat.tensors.filter((t) => isFloat(t.dtype)))]
  if (list.length === 0)
    throw new SteepestError('ARGUMENT', { who, rule: 'the parameters must hold at least one float tensor' })
  const place = new Map(list.map((t, i) => [t, i]))
  return { list, fill: (of, other) => flat.unflatten(flat.tensors.map((t) => of[place.get(t)!] ?? other)) }
}

/** `f` of a list of the different float tensors of `params`. */
function ofList<P, B>(who: string, f: (params: P, example: B) => Tensor, params: P) {
  const { list, fill } = parametersOf(who, params)
  const flat = flatten(params)
  const place = new Map(list.map((t, i) => [t, i]))
  const listed = (given: Tensor[], example: B): Tensor =>
    f(flat.unflatten(flat.tensors.map((t) => given[place.get(t)!] ?? t)), example)
  return { list, fill, listed }
}

/**
 * The Euclidean norms of the gradients of `f(params, example)` for every example of a batch, [N], without making those gradients where
 * that takes more memory: the gradient of a weight is Σ_t a_t ⊗ b_t over the positions t of an example, and its squared norm
 * Σ_ts (a_t·a_s)(b_t·b_s) (Goodfellow, "Efficient per-example gradient computations", 2015; for sequences and convolutions Li et al.,
 * "Large language models can be strong differentially private learners", 2022, and Bu et al. 2022).
 *
 * @param f the loss of one example, a scalar
 * @returns a function that gives `total` [N] and `each`, a tree like `params` of norms [N] (0 for integers); what is not read is not computed.
 *   float32 for bfloat16 parameters. A tensor that occurs twice in `params` is one parameter.
 */
export function perExampleNorms<P, B>(
  f: (params: P, example: B) => Tensor,
  options: PerExampleOptions = {},
): (params: P, batch: B) => PerExample<P> {
  const who = 'perExampleNorms'
  const choice = choiceOf(who, options, holdsLess)
  return (params, batch) => {
    const { list, fill, listed } = ofList(who, f, params)
    const squares = (given: Tensor[], example: B): Tensor[] =>
      partsOf(
        who,
        listed,
        choice,
      )(given, example).map((part) =>
        'gradient' in part
          ? sum(square(wide(part.gradient)))
          : maximum(addUp(innerProduct(part.factors, part.factors)), 0),
      )
    const found = vmap(squares, { inAxes: [null, 0] })(list, batch)
    const none = zeros(found[0].shape, found[0].dtype)
    return {
      total: sqrt(addUp(found)),
      each: fill(
        found.map((t) => sqrt(t)),
        none,
      ),
    }
  }
}

/** [N, M] from the gradients [N, …] and [M, …] of one weight. */
function betweenGradients(x: Tensor, y: Tensor): Tensor {
  const flat = (t: Tensor): Tensor => reshape(wide(t), [t.shape[0], -1])
  return matmul(flat(x), swapAxes(flat(y), 0, 1))
}

/** [N, M], one example of the first at a time, so that T×T products are held for M pairs only. */
function betweenFactors(x: Factors[], y: Factors[]): Tensor {
  const row = (one: Factors[]): Tensor => vmap((other: Factors[]) => addUp(innerProduct(one, other)))(y)
  return scan((carry: null, one: Factors[]) => ({ carry, y: row(one) }), null, x).ys as unknown as Tensor
}

/**
 * The inner products of the gradients of all pairs of examples of two batches, [N, M]: the empirical tangent kernel of the loss, of which
 * influence, similarity and variance of gradients are made. Found as `perExampleNorms` finds norms.
 *
 * @param f the loss of one example, a scalar
 * @returns a function of the parameters, a batch of N examples and another of M (the same one where it is left out)
 */
export function perExampleProducts<P, B>(
  f: (params: P, example: B) => Tensor,
  options: PerExampleOptions = {},
): (params: P, batch: B, other?: B) => PerExample<P> {
  const who = 'perExampleProducts'
  choiceOf(who, options, holdsLess)
  return (params, batch, other) => {
    const [n, m] = [batch, other ?? batch].map((given) => flatten(given).tensors[0]?.shape[0] ?? 0)
    const choice = choiceOf(who, options, multipliesLess(n, m))
    const { list, fill, listed } = ofList(who, f, params)
    const parts = (pick: Choice, given: B) => vmap(partsOf(who, listed, pick), { inAxes: [null, 0] })(list, given)
    const first = parts(choice, batch)
    const second = other === undefined ? first : parts((_, i) => 'factors' in first[i], other)
    const found = first.map((p, i) => {
      const q = second[i]
      if ('gradient' in p && 'gradient' in q) return betweenGradients(p.gradient, q.gradient)
      if ('factors' in p && 'factors' in q) return betweenFactors(p.factors, q.factors)
      throw new SteepestError('TRACE', {
        who,
        rule: 'the loss must use the same parameters for the examples of both batches',
        got: showAval(list[i]),
      })
    })
    const none = zeros(found[0].shape, found[0].dtype)
    return { total: addUp(found), each: fill(found, none) }
  }
}
