import { opNamed, type Attrs, type OpDef } from '../ops/define.js'
import { bf16Bits } from '../tensor/bytes.js'
import { bytesOf } from '../tensor/dtype.js'
import { type Aval, sizeOf, stridesOf } from '../tensor/shape.js'
import type { Node, Tensor } from '../tensor/tensor.js'
import { type Graph, isLeaf } from './graph.js'
import { order } from './order.js'
import { type Buf, type Instruction, isWhole, type Lowered, newBuf, type Operand } from './instruction.js'
import { isContiguous, viewLayout } from './views.js'

class Planner {
  readonly instructions: {
    op: OpDef
    attrs: Attrs
    inputs: Operand[]
    outputs: Operand[]
    scope: string
    node?: Node
  }[] = []
  readonly bufs: Buf[] = []
  readonly externals: Buf[] = []
  readonly operands = new Map<Tensor, Operand>()
  readonly copies = new Map<Tensor, Operand>()
  readonly constants: number[] = []
  /** Values that are to be written straight into an external. */
  readonly direct = new Map<Tensor, Buf>()

  buf(space: Buf['space'], bytes: number, label: string, at = 0): Buf {
    const buf = newBuf(space, bytes, label, at)
    this.bufs.push(buf)
    return buf
  }

  external(bytes: number, label: string): Buf {
    const buf = this.buf('external', bytes, label, this.externals.length)
    this.externals.push(buf)
    return buf
  }

  fresh(aval: Aval, label: string, buf = this.buf('arena', sizeOf(aval.shape) * bytesOf(aval.dtype), label)): Operand {
    return { buf, shape: aval.shape, dtype: aval.dtype, offset: 0, strides: stridesOf(aval.shape) }
  }

  constant(t: Tensor): Operand {
    // Eight bytes each, so that any dtype is aligned; the words are encoded with the program.
    const at = this.constants.length * 8
    this.constants.push(t.node.attrs.value as number)
    return this.fresh(t, 'constant', this.buf('constant', bytesOf(t.dtype), 'constant', at))
  }

  operand(t: Tensor): Operand {
    const known = this.operands.get(t)
    if (known) return known
    const { node } = t
    let made: Operand
    if (node.op.name === 'constant') made = this.constant(t)
    else if (node.op.kind === 'view') {
      const input = this.operand(node.inputs[0])
      const layout = viewLayout(node, input)
      if (layout) made = { buf: input.buf, shape: t.shape, dtype: t.dtype, ...layout }
      else {
        const copied = this.contiguous(node.inputs[0])
        made = { buf: copied.buf, shape: t.shape, dtype: t.dtype, ...viewLayout(node, copied)! }
      }
    } else throw new Error(`${node.op.name} was not planned before it is read`)
    this.operands.set(t, made)
    return made
  }

  contiguous(t: Tensor): Operand {
    const operand = this.operand(t)
    if (isContiguous(operand.shape, operand.strides)) return operand
    const known = this.copies.get(t)
    if (known) return known
    const made = this.copy(operand, this.fresh(t, `copy ${t.node.scope}`), t.node.scope)
    this.copies.set(t, made)
    return made
  }

  copy(from: Operand, to: Operand, scope: string): Operand {
    const attrs = { constants: [], code: [], outputs: [0], shape: [...from.shape] }
    this.instructions.push({ op: opNamed('elementwise'), attrs, inputs: [from], outputs: [to], scope })
    return to
  }

  kernel(node: Node, donated: ReadonlySet<Buf>, inPlace: ReadonlySet<number> | undefined): void {
    const { op, attrs } = node
    const strided = op.strided ?? []
    const inputs = node.inputs.map((t, i) =>
      strided === 'all' || strided.includes(i) ? this.operand(t) : this.contiguous(t),
    )
    const updates = op.updates?.(attrs, inputs.length) ?? []
    const outputs = node.outputs.map((t, i) => {
      const target = updates.find(([o]) => o === i)
      if (target && inPlace?.has(i)) {
        const state = inputs[target[1]]
        if (isWhole(state) && donated.has(state.buf)) return this.fresh(t, state.buf.label, state.buf)
      }
      const label = node.scope ? `${node.scope}: ${op.name}` : op.name
      return this.fresh(t, label, this.direct.get(t) ?? this.buf('arena', sizeOf(t.shape) * bytesOf(t.dtype), label))
    })
    node.outputs.forEach((t, i) => this.operands.set(t, outputs[i]))
    this.instructions.push({ op, attrs, inputs, outputs, scope: node.scope, node })
  }
}

/** The value whose memory an output is, looking through views that change nothing but shape. */
function source(t: Tensor): Tensor {
  let at = t
  while (at.node.op.name === 'reshape' || at.node.op.name === 'alias' || at.node.op.name === 'stopGradient')
    at = at.node.inputs[0]
  return at
}

/**
 * Orders the nodes and lowers them: views become strided operands, what a kernel cannot read is copied, outputs are written straight into
 * their externals and updates overwrite the state that they replace.
 *
 * @param donated inputs of the graph whose memory an update may overwrite
 * @param workspace scratch bytes that an instruction asks for
 */
export function lower(
  graph: Graph,
  donated: ReadonlySet<number>,
  workspace: (i: Omit<Instruction, 'workspace'>) => number,
): Lowered {
  const planner = new Planner()
  const donatedBufs = new Set<Buf>()
  graph.inputs.forEach((t, i) => {
    const buf = planner.external(sizeOf(t.shape) * bytesOf(t.dtype), `input ${i}`)
    planner.operands.set(t, planner.fresh(t, '', buf))
    if (donated.has(i)) donatedBufs.add(buf)
  })
  const { nodes, inPlace, direct } = order(graph, new Set([...donated].map((i) => graph.inputs[i])))

  for (const t of graph.outputs) {
    const from = source(t)
    if (isLeaf(from.node) || from.node.op.kind === 'view' || planner.direct.has(from)) continue
    if (inPlace.get(from.node)?.has(from.index)) continue
    planner.direct.set(from, planner.external(sizeOf(t.shape) * bytesOf(t.dtype), 'output'))
  }
  for (const node of direct) planner.direct.set(node.inputs[1], planner.operand(node.inputs[0]).buf)
  for (const node of nodes) {
    if (isLeaf(node) || node.op.kind === 'view') continue
    if (direct.has(node)) planner.operands.set(node.outputs[0], planner.operand(node.inputs[1]))
    else planner.kernel(node, donatedBufs, inPlace.get(node))
  }
  const taken = new Set<Buf>()
  const outputs = graph.outputs.map((t) => {
    const operand = planner.operand(t)
    const isInput = operand.buf.at < graph.inputs.length && !(donatedBufs.has(operand.buf) && source(t).node.op.updates)
    if (operand.buf.space === 'external' && !isInput && isWhole(operand) && !taken.has(operand.buf)) {
      taken.add(operand.buf)
      return operand.buf.at
    }
    const buf = planner.external(sizeOf(t.shape) * bytesOf(t.dtype), 'output')
    planner.copy(operand, planner.fresh(t, '', buf), 'output')
    return buf.at
  })

  const instructions = planner.instructions.map((i): Instruction => {
    const label = `workspace of ${i.scope ? `${i.scope}: ` : ''}${i.op.name}`
    return { ...i, workspace: newBuf('arena', workspace(i), label) }
  })
  const count = instructions.length
  return { instructions, count, externals: planner.externals, outputs, constants: encodeConstants(planner), workspace }
}

function encodeConstants(planner: Planner): Uint8Array {
  const view = new DataView(new ArrayBuffer(planner.constants.length * 8))
  for (const operand of planner.operands.values()) {
    const { buf, dtype } = operand
    if (buf.space !== 'constant') continue
    const value = planner.constants[buf.at / 8]
    if (dtype === 'float32') view.setFloat32(buf.at, value, true)
    else if (dtype === 'float64') view.setFloat64(buf.at, value, true)
    else if (dtype === 'int32') view.setInt32(buf.at, value, true)
    else if (dtype === 'uint8') view.setUint8(buf.at, value)
    else view.setUint16(buf.at, bf16Bits(value), true)
  }
  return new Uint8Array(view.buffer)
}
