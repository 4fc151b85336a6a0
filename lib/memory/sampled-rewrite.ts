import { type Graph, schedule } from '../graph/graph.js'
import { rebuild } from '../graph/rebuild.js'
import type { Context } from '../nn/module.js'
import { stopGradient } from '../ops/control.js'
import { add, cast, mul, square } from '../ops/elementwise.js'
import type { MatmulAttrs } from '../ops/matmul.js'
import { sum } from '../ops/reduce.js'
import { rowNorms, sampleRows, type SampleRowsOptions, takeScaled } from '../ops/sampling.js'
import { alias, swapAxes, zeros } from '../ops/shape.js'
import type { Node, Tensor } from '../tensor/tensor.js'
import { sampledPair } from './sampled-attention.js'
import { NormRecords } from './sampled-norms.js'
import { type Sample, sampledProduct } from './sampled-product.js'
import { signedRelu } from './sampled-relu.js'

/** A product that can be sampled. */
interface Product {
  readonly node: Node
  /** The parameter by its name. */
  readonly name: string
  readonly weightAt: 0 | 1
  /** Whether the parameter lies transposed to the operand. */
  readonly flipped: boolean
  /** Rows that are summed over in the weight gradient. */
  readonly rows: number
}

/** The parameter that an operand is, seen through views and casts. */
export function parameterOf(
  t: Tensor,
  names: ReadonlyMap<Tensor, string>,
): { name: string; flipped: boolean } | undefined {
  let at = t
  let flipped = false
  for (;;) {
    const name = names.get(at)
    if (name !== undefined) return { name, flipped }
    const { op, inputs, attrs } = at.node
    if (op.kind !== 'view' && op.name !== 'cast') return undefined
    if (op.name === 'transpose') flipped = flipped !== ((attrs.axes as number[]).at(-1) !== at.rank - 1)
    at = inputs[0]
  }
}

/** The products of two axes in a graph one operand of which is a parameter, and the other is not. */
export function productsOf(nodes: readonly Node[], names: ReadonlyMap<Tensor, string>): Product[] {
  return nodes.flatMap((node) => {
    if (node.op.name !== 'matmul' || node.inputs.length !== 2 || node.inputs[0].rank !== 2) return []
    const attrs = node.attrs as MatmulAttrs
    if (attrs.activation !== 'none' || attrs.scale !== 1 || attrs.preactivation) return []
    const [left, right] = node.inputs.map((t) => parameterOf(t, names))
    if (Boolean(left) === Boolean(right)) return []
    const weightAt = left ? 0 : 1
    const { name, flipped } = (left ?? right)!
    return [{ node, name, weightAt, flipped, rows: left ? node.outputs[0].shape[1] : node.outputs[0].shape[0] }]
  })
}

/** The value whose rows these are, whatever its axes before the last are called. */
function rowsOf(t: Tensor): Tensor {
  let at = t
  while (at.node.op.name === 'reshape' && at.node.inputs[0].shape.at(-1) === at.shape.at(-1)) at = at.node.inputs[0]
  return at
}

/** How the products of a graph are sampled. */
export interface Sampling extends Omit<SampleRowsOptions, 'k' | 'gains' | 'site'> {
  /** Rows to keep of so many. */
  keep(rows: number): number
  /** Where norms are remembered. */
  readonly norms: Tensor | null
}

/** What is to be sampled. */
export interface Found {
  readonly products: readonly Product[]
  /** Products of two activations. */
  readonly pairs: readonly Node[]
}

/** Rows that several products share. */
interface Site {
  readonly products: Product[]
  readonly rows: number
}

/** Products with the same input are one site: what is kept for one serves all. */
function sitesOf(products: readonly Product[], keep: (rows: number) => number): Map<Node, Site> {
  const byInput = new Map<string, Site>()
  const ids = new Map<Tensor, number>()
  const sites = new Map<Node, Site>()
  for (const p of products) {
    if (keep(p.rows) >= p.rows) continue
    const input = rowsOf(p.node.inputs[1 - p.weightAt])
    if (!ids.has(input)) ids.set(input, ids.size)
    const key = `${ids.get(input)} ${p.weightAt} ${p.rows}`
    const site = byInput.get(key) ?? { products: [], rows: p.rows }
    site.products.push(p)
    byInput.set(key, site)
    sites.set(p.node, site)
  }
  return sites
}

/** What the gradient will tell of a site. */
interface Watched {
  readonly probe: Tensor
  /** Squared norms of the input's rows, times what a row counts when it is drawn. */
  readonly spread: Tensor
}

/**
 * The same graph with the weight gradients of products, and the gradients of pairs, estimated from some of their rows; ReLU then keeps its
 * signs alone. It is for a graph that is not differentiated
 * yet.
 *
 * @param found its nodes
 * @param map receives what stands for each tensor; what it has already stays as it is
 */
export function sampleProducts(
  graph: Graph,
  { products, pairs }: Found,
  sampling: Sampling,
  ctx: Context,
  map: Map<Tensor, Tensor>,
): Graph {
  const { keep, norms: state, ...how } = sampling
  const key = ctx.requireKey('memory.sampled')
  const sites = sitesOf(products, keep)
  const list = [...new Set(sites.values())]
  const [batch] = ctx.ids?.shape ?? [0]
  const remembered = list.filter((s) => batch > 0 && s.rows % batch === 0)
  const records = NormRecords.of(
    state,
    ctx.ids,
    remembered.map((s) => s.rows / batch),
  )
  const numbers = new Map(list.map((s) => [s, ctx.site()]))
  const samples = new Map<Site, Sample>()
  const watched = new Map<Site, Watched>()
  const order = { second: false }

  const sampleOf = (site: Site, x: Tensor): Sample => {
    const known = samples.get(site)
    if (known) return known
    const own = stopGradient(x)
    const norms = rowNorms(own)
    const at = remembered.indexOf(site)
    const gains = records && at >= 0 ? cast(records.gains(at), norms.dtype) : undefined
    const { indices, weights, inverse } = sampleRows(norms, key, {
      ...how,
      k: keep(site.rows),
      site: numbers.get(site)!,
      gains,
    })
    const probe = alias(zeros([site.rows], norms.dtype))
    const sample = { rows: takeScaled(own, indices, weights), indices, probe, order }
    samples.set(site, sample)
    watched.set(site, { probe, spread: mul(square(norms), inverse) })
    return sample
  }

  const byNode = new Map(products.map((p) => [p.node, p]))
  const both = new Set(pairs)
  const out = rebuild(
    graph,
    (node, inputs) => {
      const site = sites.get(node)
      if (node.op.name === 'relu' && node.outputs[0].rank > 0) return signedRelu(inputs[0])
      if (both.has(node)) return sampledPair(node, inputs, keep, key, how, () => ctx.site(), order)
      if (!site) return undefined
      const { weightAt, flipped } = byNode.get(node)!
      const x = inputs[1 - weightAt]
      const sample = sampleOf(site, weightAt === 0 ? swapAxes(x, 0, 1) : x)
      return sampledProduct(node, inputs, weightAt, flipped, sample)
    },
    map,
  )
  const seen = list.filter((s) => watched.has(s))
  ctx.withGradient(
    seen.map((s) => watched.get(s)!.probe),
    (squares) => {
      records?.write(
        ctx,
        remembered.map((s) => squares[seen.indexOf(s)]),
      )
      if (how.method === 'topK') return
      const errors = seen.map((s, i) => cast(sum(mul(watched.get(s)!.spread, squares[i])), 'float32'))
      if (errors.length > 0)
        ctx.report(
          'samplingVariance',
          errors.reduce((a, b) => add(a, b)),
        )
    },
  )
  return out
}

/** The nodes of a loss that are made from `start` on, and a map that leaves all others as they are. */
export function ownNodes(outputs: readonly Tensor[], start: number): { own: Node[]; map: Map<Tensor, Tensor> } {
  const own: Node[] = []
  const map = new Map<Tensor, Tensor>()
  for (const node of schedule(outputs)) {
    if (node.id >= start) own.push(node)
    else for (const t of node.outputs) map.set(t, t)
  }
  return { own, map }
}
