import { checkOptions, SteepestError } from '../errors.js'
import { type Graph, isLeaf, schedule } from '../graph/graph.js'
import { broadcastTo, placeholder, transpose } from '../ops/shape.js'
import { normalizeAxis } from '../tensor/shape.js'
import { makeNode, type Node, type Tensor, withNodeScope } from '../tensor/tensor.js'
import { trace } from './trace.js'
import { flatten } from './tree.js'

/** Which axis of an argument is mapped; null: the argument is the same for all. */
export type MapAxis = number | null

export interface VmapOptions {
  /** The mapped axis of every argument, or one per argument; 0 by default. */
  inAxes?: MapAxis | readonly MapAxis[]
  /** Where the new axis of every output goes; 0 by default. */
  outAxes?: number
}

interface Mapped {
  t: Tensor
  batched: boolean
}

/** @internal The axis `from` of `t` at the place `to`. */
export const moveAxis = (t: Tensor, from: number, to: number): Tensor => {
  const axes = t.shape.map((_, i) => i).filter((i) => i !== from)
  axes.splice(to, 0, from)
  return transpose(t, axes)
}

function mapNode(node: Node, inputs: readonly Mapped[], size: number): Mapped[] {
  const tensors = inputs.map((m) => m.t)
  if (!inputs.some((m) => m.batched)) return makeNode(node.op, tensors, node.attrs).map((t) => ({ t, batched: false }))
  const { op, attrs } = node
  if (op.batch)
    return op
      .batch({ inputs: tensors, batched: inputs.map((m) => m.batched), size, attrs })
      .map((t) => ({ t, batched: true }))
  if (op.define) {
    const body = node.inputs.map((t) => placeholder(t))
    return mapGraph({ inputs: body, outputs: op.define(body, attrs) }, inputs, size)
  }
  throw new SteepestError('TRACE', { who: op.name, rule: 'this op has no rule for vmap' })
}

/** Runs a graph on inputs of which some have a new axis 0. */
function mapGraph(graph: Graph, inputs: readonly Mapped[], size: number): Mapped[] {
  const map = new Map<Tensor, Mapped>()
  graph.inputs.forEach((t, i) => map.set(t, inputs[i]))
  const get = (t: Tensor): Mapped => map.get(t) ?? { t, batched: false }
  for (const node of schedule(graph.outputs)) {
    if (isLeaf(node)) continue
    const outputs = withNodeScope(node, () => mapNode(node, node.inputs.map(get), size))
    node.outputs.forEach((t, i) => map.set(t, outputs[i]))
  }
  return graph.outputs.map(get)
}

/**
 * A function that applies `f` to every slice of its arguments along an axis, as one batched computation.
 * Tensors that `f` uses from outside are the same for all slices.
 */
export function vmap<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  options: VmapOptions = {},
): (...args: A) => R {
  checkOptions('vmap', options, ['inAxes', 'outAxes'])
  return (...args) => {
    const axes = args.map(
      (_, i): MapAxis =>
        Array.isArray(options.inAxes)
          ? (options.inAxes as readonly MapAxis[])[i]
          : ((options.inAxes as MapAxis | undefined) ?? 0),
    )
    const perTensor = args.flatMap((arg, i) =>
      flatten(arg).tensors.map((): MapAxis => (options.inAxes === null ? null : axes[i])),
    )
    const flat = flatten(args)
    let size: number | undefined
    const inputs = flat.tensors.map((t, i): Mapped => {
      const axis = perTensor[i]
      if (axis === null) return { t, batched: false }
      const at = normalizeAxis('vmap', axis, t.rank)
      size ??= t.shape[at]
      if (t.shape[at] !== size) {
        throw new SteepestError('SHAPE', {
          who: 'vmap',
          rule: 'mapped axes must have one length',
          got: `${t.shape[at]} and ${size}`,
        })
      }
      return { t: moveAxis(t, at, 0), batched: true }
    })
    if (size === undefined)
      throw new SteepestError('ARGUMENT', { who: 'vmap', rule: 'at least one argument must be mapped' })
    const n = size
    const avals = inputs.map((m) => ({ shape: m.batched ? m.t.shape.slice(1) : m.t.shape, dtype: m.t.dtype }))
    const { graph, captures, out } = trace('vmap', f, args, avals)
    const mapped = mapGraph(graph, [...inputs, ...captures.map((t) => ({ t, batched: false }))], n)
    return out.unflatten(
      mapped.map((m) => {
        const t = m.batched ? m.t : broadcastTo(m.t, [n, ...m.t.shape])
        const to = options.outAxes ?? 0
        return to === 0 ? t : moveAxis(t, 0, normalizeAxis('vmap', to, t.rank))
      }),
    )
  }
}
