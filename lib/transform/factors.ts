import { type Graph, schedule } from '../graph/graph.js'
import { rebuild } from '../graph/rebuild.js'
import { wide } from '../ops/batching.js'
import { type ConvGeometry, weightFactors } from '../ops/conv-define.js'
import { cast, equal, mul } from '../ops/elementwise.js'
import { type SliceAttrs, take } from '../ops/indexing.js'
import { linearCrossEntropyByLogits } from '../ops/loss-linear.js'
import { matmul, type MatmulAttrs } from '../ops/matmul.js'
import { sum } from '../ops/reduce.js'
import { reshape, swapAxes } from '../ops/shape.js'
import type { Node, Tensor } from '../tensor/tensor.js'

/**
 * The gradient of a weight at one place of its use, as factors: Σ_t a[g, t, :] ⊗ b[g, t, :] for every group g of the weight. Where the
 * place is a look-up, `a` is the one-hot of `ids` over `classes`, and is not held.
 */
export interface Factors {
  /** [G, T, K], or the int32 ids [T] of a look-up. */
  readonly a: Tensor
  /** [G, T, N] */
  readonly b: Tensor
  readonly lookup: boolean
}

/** A place where a weight meets an example by a product. */
export interface Site {
  /** What its gradient is asked for. */
  readonly output: Tensor
  /** Positions that an example brings, and the size of the weight's gradient: what Gram products and the gradient itself would hold. */
  readonly positions: number
  readonly size: number
  /** Multiplications for the product of two positions. */
  readonly width: number
  /** How the weight's elements, in their order, are seen as [G, K, N]: factors of two places go together only where this agrees. */
  readonly layout: string
  /** The factor that comes from what the weight meets; the other comes from the gradient. */
  readonly met: 'a' | 'b'
  /** `at` gives what stands in the place of a tensor of the graph. */
  readonly factors: (at: (t: Tensor) => Tensor, gradient: Tensor) => Factors
}

/** How a tensor comes from a weight: its elements, as a matrix turned around or in some other order, perhaps repeated along new leading axes. */
interface Image {
  readonly weight: number
  readonly order: 'same' | 'turned' | 'other'
  /** Leading axes along which it is repeated. */
  readonly repeated: number
}

const KEEPING = new Set(['alias', 'cast'])

function imageOf(node: Node, from: Image): Image | undefined {
  const [x] = node.inputs
  const [y] = node.outputs
  if (KEEPING.has(node.op.name)) return from
  if (from.repeated > 0) return undefined
  if (node.op.name === 'reshape') return from.order === 'same' ? from : { ...from, order: 'other' }
  if (node.op.name === 'transpose') {
    if (x.rank !== 2 || from.order === 'other') return { ...from, order: 'other' }
    return { ...from, order: from.order === 'same' ? 'turned' : 'same' }
  }
  // Repeated along new axes only; a row that serves every position is a sum over them, and no product.
  const lead = y.rank - x.rank
  if (node.op.name === 'broadcastTo' && x.shape.every((d, i) => d === y.shape[lead + i]))
    return { ...from, repeated: lead }
  return undefined
}

/** Rows [G, T, D] of [..., T, D], with the leading axes that are no groups among the rows. */
function rows(t: Tensor, groups: boolean): Tensor {
  const [length, depth] = t.shape.slice(-2)
  return groups ? reshape(t, [-1, length, depth]) : reshape(t, [1, -1, depth])
}

function matmulSite(node: Node, which: 0 | 1, image: Image): Site | undefined {
  const attrs = node.attrs as unknown as MatmulAttrs
  const [y] = node.outputs
  const weight = node.inputs[which]
  const other = node.inputs[1 - which]
  const lead = weight.rank - 2
  if (attrs.activation !== 'none' || attrs.preactivation || attrs.scale !== 1) return undefined
  if (image.repeated !== 0 && image.repeated !== lead) return undefined
  const groups = image.repeated === 0
  const count = weight.shape.slice(0, lead).reduce((n, d) => n * d, 1)
  const [k, n] = weight.shape.slice(-2)
  const positions = (which === 1 ? y.shape[y.rank - 2] : y.shape[y.rank - 1]) * (groups ? 1 : count)
  return {
    output: y,
    positions,
    size: k * n * (groups ? count : 1),
    width: (k + n) * (groups ? count : 1),
    layout:
      image.order === 'other'
        ? 'other'
        : `${groups ? count : 1}x${image.order === 'turned' ? `${n}x${k}` : `${k}x${n}`}`,
    met: (which === 1) === (image.order === 'turned') ? 'b' : 'a',
    factors: (at, gradient) => {
      const x = at(other)
      // y = x·W: dW = xᵀ·dy. y = W·x: dW = dy·xᵀ, with positions along the last axis.
      const [a, b] = which === 1 ? [x, gradient] : [swapAxes(gradient, -1, -2), swapAxes(x, -1, -2)]
      const turned = image.order === 'turned'
      return { a: rows(turned ? b : a, groups), b: rows(turned ? a : b, groups), lookup: false }
    },
  }
}

function takeSite(node: Node, image: Image): Site | undefined {
  const { axis, batchDims } = node.attrs as unknown as SliceAttrs
  const [table, indices] = node.inputs
  if (image.order !== 'same' || image.repeated > 0 || table.rank !== 2 || axis !== 0 || batchDims !== 0)
    return undefined
  return {
    output: node.outputs[0],
    positions: indices.size,
    size: table.size,
    width: table.shape[1],
    layout: `1x${table.shape.join('x')}`,
    met: 'a',
    factors: (at, gradient) => ({
      a: reshape(at(indices), [-1]),
      b: reshape(gradient, [1, -1, table.shape[1]]),
      lookup: true,
    }),
  }
}

/** A convolution, or the transposed one: the gradient of its output by its input. */
function convSite(node: Node, image: Image): Site | undefined {
  if (image.repeated > 0) return undefined
  const geometry = node.attrs as unknown as ConvGeometry
  const [x, w] = node.inputs
  const [y] = node.outputs
  const forward = node.op.name === 'conv'
  const { groups } = geometry
  const [outputs, ...inner] = w.shape
  const depth = inner.reduce((n, d) => n * d, 1)
  const [batch, , ...counts] = forward ? y.shape : x.shape
  return {
    output: y,
    positions: counts.reduce((n, d) => n * d, batch),
    size: w.size,
    width: outputs + groups * depth,
    layout: image.order === 'other' ? 'other' : `${groups}x${outputs / groups}x${depth}`,
    met: forward ? 'b' : 'a',
    factors: (at, gradient) => {
      const [image, slope] = forward ? [at(x), gradient] : [gradient, at(x)]
      const { slopes, seen } = weightFactors(image, slope, w.shape.slice(2), geometry)
      return { a: swapAxes(slopes, 1, 2), b: swapAxes(seen, 1, 2), lookup: false }
    },
  }
}

function siteOf(node: Node, input: number, image: Image): Site | undefined {
  if (node.op.name === 'matmul' && input < 2) return matmulSite(node, input as 0 | 1, image)
  if (node.op.name === 'take' && input === 0) return takeSite(node, image)
  if ((node.op.name === 'conv' || node.op.name === 'convInputBackward') && input === 1) return convSite(node, image)
  return undefined
}

/** The graph with all that hides a product of a weight in the open. */
export function openProducts(graph: Graph): Graph {
  const open = rebuild(graph, (node, inputs) => {
    if (node.op.name === 'linearCrossEntropy') return linearCrossEntropyByLogits(inputs, node.attrs as never)
    return node.op.name === 'checkpoint' ? node.op.define!(inputs, node.attrs) : undefined
  })
  return schedule(open.outputs).some((node) => node.op.name === 'checkpoint') ? openProducts(open) : open
}

/**
 * The places where each of the first `count` inputs of the graph meets the rest by products and look-ups; nothing for one that also goes
 * elsewhere, or whose places see it in orders of its elements that are not known to agree.
 */
export function sitesOf(graph: Graph, count: number): (readonly Site[] | undefined)[] {
  const sites: (Site[] | undefined)[] = Array.from({ length: count }, () => [])
  const images = new Map<Tensor, Image>()
  for (let i = 0; i < count; i++) images.set(graph.inputs[i], { weight: i, order: 'same', repeated: 0 })
  for (const node of schedule(graph.outputs)) {
    node.inputs.forEach((t, input) => {
      const image = images.get(t)
      if (!image) return
      const next = node.inputs.length === 1 ? imageOf(node, image) : undefined
      if (next) {
        images.set(node.outputs[0], next)
        return
      }
      const site = siteOf(node, input, image)
      if (site) sites[image.weight]?.push(site)
      else sites[image.weight] = undefined
    })
  }
  for (const t of graph.outputs) {
    const image = images.get(t)
    if (image) sites[image.weight] = undefined
  }
  const agree = ([first, ...rest]: readonly Site[]) =>
    rest.length === 0 || (first.layout !== 'other' && rest.every((site) => site.layout === first.layout))
  return sites.map((list) => (list && agree(list) ? list : undefined))
}

/** [G, T, T'] products of rows. */
const gram = (x: Tensor, y: Tensor): Tensor => matmul(wide(x), swapAxes(wide(y), -1, -2))

/** [T, V] rows at the ids [T'] of a one-hot: their products [1, T, T']. */
const seen = (x: Tensor, ids: Tensor): Tensor => take(wide(x), ids, { axis: -1 })

function firstGram(p: Factors, q: Factors, like: Tensor): Tensor {
  if (p.lookup && q.lookup) return cast(equal(reshape(p.a, [1, -1, 1]), reshape(q.a, [1, 1, -1])), like.dtype)
  if (p.lookup) return swapAxes(seen(q.a, p.a), -1, -2)
  return q.lookup ? seen(p.a, q.a) : gram(p.a, q.a)
}

/** ⟨Σ_t a⊗b, Σ_t' a'⊗b'⟩ = Σ_tt' (a·a')(b·b'): the inner product of two gradients, from their factors. */
export function innerProduct(p: readonly Factors[], q: readonly Factors[]): Tensor[] {
  return p.flatMap((x) =>
    q.map((y) => {
      const second = gram(x.b, y.b)
      return sum(mul(firstGram(x, y, second), second))
    }),
  )
}
