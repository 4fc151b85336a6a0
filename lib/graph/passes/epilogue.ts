import { matmulRow, type Activation, type MatmulAttrs } from '../../ops/matmul.js'
import { reshape } from '../../ops/shape.js'
import { sameShape } from '../../tensor/shape.js'
import { makeNode, type Node, type Tensor, withNodeScope } from '../../tensor/tensor.js'
import { constantOf } from '../constant.js'
import { type Graph, isLeaf, schedule } from '../graph.js'
import { rebuild } from '../rebuild.js'

const ACTIVATIONS: ReadonlySet<string> = new Set<Activation>(['relu', 'gelu', 'geluTanh', 'silu', 'tanh'])

/** A product whose result nothing but the node at hand reads, seen through reshapes. */
interface Product {
  readonly node: Node
  readonly attrs: MatmulAttrs
}

/** A vector that is repeated over all axes but the last one. */
function rowVector(t: Tensor): Tensor | undefined {
  let at = t
  const length = t.shape[t.rank - 1]
  while (at.node.op.name === 'broadcastTo' || (at.node.op.name === 'reshape' && at.size === length))
    at = at.node.inputs[0]
  const fits = at !== t && at.size === length && (at.rank === 0 ? length === 1 : at.shape[at.rank - 1] === length)
  return fits && constantOf(at) === undefined ? at : undefined
}

/** Lies in memory as its shape says, so that another shape costs no copy. */
const isDense = (t: Tensor): boolean => {
  let at = t
  while (at.node.op.name === 'reshape') at = at.node.inputs[0]
  return at.node.op.kind !== 'view'
}

/** When a value comes to be; leaves are there from the beginning. */
const madeAt = (t: Tensor): number => {
  let at = t
  while (at.node.op.name === 'reshape') at = at.node.inputs[0]
  return isLeaf(at.node) ? -1 : at.node.id
}

const isPowerOfTwo = (x: number): boolean => Number.isInteger(Math.log2(Math.abs(x)))

/**
 * Matmul epilogues: a factor, a bias, an activation, a residual and a widening cast that follow a product become part of it, so that they
 * run on its tile while that is in cache. Only where nothing else reads the product; an activation also where its argument is read
 * later (by its derivative), the product then writes both. Float32 and float64 keep their bits; bfloat16 is rounded once instead of at
 * every step.
 */
export function epilogue(graph: Graph): Graph {
  const readers = new Map<Tensor, Node[]>()
  const count = (t: Tensor, node: Node) => readers.set(t, [...(readers.get(t) ?? []), node])
  const nodes = schedule(graph.outputs)
  for (const node of nodes) for (const t of node.inputs) count(t, node)
  const results = new Set(graph.outputs)
  const reads = (t: Tensor) => (readers.get(t)?.length ?? 0) + (results.has(t) ? 1 : 0)

  const map = new Map<Tensor, Tensor>()
  /** How often the values that stand for one of the given graph's are read; those made here are read once. */
  const readsOf = new Map<Tensor, number>()

  const productOf = (t: Tensor, shared = false): Product | undefined => {
    let at = t
    const columns = t.shape[t.rank - 1]
    while ((readsOf.get(at) ?? 1) === 1 || (shared && at === t)) {
      const { node } = at
      if (node.op.name === 'matmul')
        return at.index === 0 && at.shape[at.rank - 1] === columns
          ? { node, attrs: node.attrs as MatmulAttrs }
          : undefined
      if (node.op.name !== 'reshape' || at.shape[at.rank - 1] !== columns) return undefined
      at = node.inputs[0]
    }
    return undefined
  }
  /** The product anew with more of its epilogue, in the shape of `like`. */
  const extend = (
    p: Product,
    like: Tensor,
    change: Partial<MatmulAttrs>,
    operand?: { t: Tensor; first: boolean },
  ): Tensor[] => {
    const inputs = [...p.node.inputs]
    // Operands come in the order of the attributes: the bias before the residual.
    if (operand) inputs.splice(operand.first ? 2 : inputs.length, 0, operand.t)
    return withNodeScope(p.node, () => matmulRow(inputs, { ...p.attrs, ...change }).map((y) => reshape(y, like.shape)))
  }
  const isPlain = ({ bias, activation, residual }: MatmulAttrs) => !bias && activation === 'none' && !residual

  const scaled = (node: Node, x: Tensor, factor: number | undefined): Tensor[] | undefined => {
    const p = factor === undefined || !Number.isFinite(factor) ? undefined : productOf(x)
    return p && p.attrs.scale === 1 && isPlain(p.attrs) ? extend(p, node.outputs[0], { scale: factor }) : undefined
  }
  const biased = (node: Node, x: Tensor, other: Tensor): Tensor[] | undefined => {
    const vector = rowVector(other)
    const p = vector && productOf(x)
    if (!p || !isPlain(p.attrs) || vector.dtype !== p.node.inputs[0].dtype || x.dtype !== node.outputs[0].dtype)
      return undefined
    return extend(p, node.outputs[0], { bias: true }, { t: reshape(vector, [vector.size]), first: true })
  }
  const activated = (node: Node, x: Tensor): Tensor[] | undefined => {
    const given = node.inputs[0]
    const isShared = reads(given) > 1
    const p = productOf(x, isShared)
    if (!p || p.attrs.activation !== 'none' || p.attrs.residual || p.attrs.preactivation) return undefined
    const activation = node.op.name as Activation
    if (!isShared) return extend(p, node.outputs[0], { activation })
    // With a second output only where the activation would be a pass of its own, and where no reader of the argument comes before.
    const others = (readers.get(given) ?? []).filter((r) => r !== node)
    const alone = (readers.get(node.outputs[0]) ?? []).every((r) => r.op.kind !== 'elementwise')
    if (!alone || others.some((r) => r.id < node.id)) return undefined
    const [y, z] = extend(p, node.outputs[0], { activation, preactivation: true })
    map.set(given, z)
    readsOf.set(z, reads(given))
    return [y]
  }
  const withResidual = (node: Node, x: Tensor, other: Tensor): Tensor[] | undefined => {
    const p = productOf(x)
    const out = node.outputs[0]
    if (!p || p.attrs.residual || p.attrs.preactivation || !sameShape(other.shape, out.shape) || !isDense(other))
      return undefined
    if (other.dtype !== p.attrs.outDtype || constantOf(other) !== undefined) return undefined
    return extend(p, out, { residual: true }, { t: reshape(other, p.node.outputs[0].shape), first: false })
  }
  const widened = (node: Node, x: Tensor): Tensor[] | undefined => {
    const p = x.dtype === 'bfloat16' && node.outputs[0].dtype === 'float32' ? productOf(x) : undefined
    return p && !p.attrs.residual && !p.attrs.preactivation
      ? extend(p, node.outputs[0], { outDtype: 'float32' })
      : undefined
  }

  const fused = (node: Node, [a, b]: readonly Tensor[]): Tensor[] | undefined => {
    const { name } = node.op
    if (ACTIVATIONS.has(name)) return activated(node, a)
    switch (name) {
      case 'mul':
        return scaled(node, a, constantOf(b)) ?? scaled(node, b, constantOf(a))
      case 'div': {
        const by = constantOf(b)
        return by !== undefined && isPowerOfTwo(by) ? scaled(node, a, 1 / by) : undefined
      }
      case 'add': {
        const bias = biased(node, a, b) ?? biased(node, b, a)
        if (bias) return bias
        // Only what is there before the product: its operands must not live on until a later residual is computed.
        return madeAt(a) > madeAt(b) ? withResidual(node, a, b) : withResidual(node, b, a)
      }
      case 'cast':
        return widened(node, a)
      default:
        return undefined
    }
  }
  return rebuild(
    graph,
    (node, inputs) => {
      const outputs = fused(node, inputs) ?? makeNode(node.op, inputs, node.attrs, node.outputs)
      outputs.forEach((t, i) => readsOf.set(t, reads(node.outputs[i])))
      return outputs
    },
    map,
  )
}
