import { normPieces, type UpdateKind, updateLayout } from '../ops/update-layout.js'
import { bytesOf } from '../tensor/dtype.js'
import { sizeOf, stridesOf } from '../tensor/shape.js'
import { type Buf, type Instruction, type Lowered, newBuf, type Operand } from './instruction.js'

/** A program in which no gradient has to be held for the norm of all of them. */
export interface Unheld {
  readonly lowered: Lowered
  /** The instruction that has the norm: what is read on both sides of it would be held there. */
  readonly norm: number
}

/** An instruction of its own for each parameter. */
function apart(i: Instruction): Omit<Instruction, 'workspace'>[] {
  if (i.op.name !== 'update') return [i]
  const { first, inputs, outputs } = updateLayout(i.attrs as unknown as UpdateKind)
  const { lrScales, sites } = i.attrs as { lrScales: readonly number[]; sites: readonly number[] }
  const shared = i.inputs.slice(0, first)
  return sites.map((site, p) => ({
    op: i.op,
    attrs: { ...i.attrs, lrScales: [lrScales[p]], sites: [site] },
    inputs: [...shared, ...i.inputs.slice(first + p * inputs, first + (p + 1) * inputs)],
    outputs: i.outputs.slice(p * outputs, (p + 1) * outputs),
    scope: i.scope,
  }))
}

/** Whether an instruction only puts a value of the arena in another order. */
const isCopy = ({ op, attrs, inputs }: Instruction): boolean =>
  op.name === 'elementwise' && (attrs.code as readonly number[]).length === 0 && inputs[0].buf.space === 'arena'

/** Copies of gradients right behind what makes them, not where the norm first reads them. */
function hoisted(head: readonly Instruction[], gradients: ReadonlySet<Buf>): Instruction[] {
  const copies = new Map<Buf, Instruction[]>()
  for (const i of head) {
    if (!isCopy(i) || !gradients.has(i.outputs[0].buf)) continue
    const from = i.inputs[0].buf
    copies.set(from, [...(copies.get(from) ?? []), i])
  }
  const moved = new Set([...copies.values()].flat())
  return head.flatMap((i) => {
    if (moved.has(i)) return []
    return [i, ...i.outputs.flatMap((o) => copies.get(o.buf) ?? [])]
  })
}

/** What comes after the norm, in the order in which the gradients were made that it needs; what overwrites stays behind what it was behind. */
function byGradient(tail: readonly Instruction[], madeAt: ReadonlyMap<Buf, number>): Instruction[] {
  const keys = new Map<Instruction, number>()
  const writer = new Map<Buf, number>()
  const reader = new Map<Buf, number>()
  const later = (key: number, ...others: (number | undefined)[]) => Math.max(key, ...others.map((k) => k ?? -1))
  for (const i of tail) {
    let key = -1
    for (const { buf } of i.inputs)
      key = later(key, buf.space === 'arena' ? madeAt.get(buf) : undefined, writer.get(buf))
    for (const { buf } of i.outputs) key = later(key, writer.get(buf), reader.get(buf))
    keys.set(i, key)
    for (const { buf } of i.inputs) reader.set(buf, later(key, reader.get(buf)))
    for (const { buf } of i.outputs) writer.set(buf, key)
  }
  return tail
    .map((i, at) => ({ i, at }))
    .sort((a, b) => keys.get(a.i)! - keys.get(b.i)! || a.at - b.at)
    .map(({ i }) => i)
}

/** The norm of all gradients for which they are held: the last that reads several values of the arena which are read after it too. */
function normOf({ instructions }: Lowered): number {
  for (let at = instructions.length - 1; at >= 0; at--) {
    const { op, attrs, inputs } = instructions[at]
    if (op.name !== 'globalNorm' || attrs.kind !== 'l2' || attrs.stage !== 'whole') continue
    const held = new Set(inputs.flatMap((o) => (o.buf.space === 'arena' ? [o.buf] : [])))
    const after = instructions.slice(at + 1).some((i) => i.inputs.some((o) => held.has(o.buf)))
    if (held.size > 1 && after && inputs.every((o) => o.dtype !== 'float64')) return at
  }
  return -1
}

/**
 * The same program, to the same bits, with the sums of squares of every gradient taken as soon as it is there, and updates of one parameter each in
 * the order in which the backward pass makes their gradients. By itself that saves nothing; but now a gradient can be given up before the norm is
 * known and be computed again for its update, by a second backward pass. Undefined where no norm holds gradients.
 */
export function unheld(lowered: Lowered): Unheld | undefined {
  const at = normOf(lowered)
  if (at < 0) return undefined
  const { instructions, workspace } = lowered
  const { node: _, workspace: __, ...whole } = instructions[at]
  const made = (bare: Omit<Instruction, 'workspace'>): Instruction => {
    return { ...bare, workspace: newBuf('arena', workspace(bare), `workspace of ${bare.op.name}`) }
  }
  const pieces = new Map<Buf, Instruction[]>()
  const operands: Operand[] = []
  const late: Instruction[] = []
  for (const gradient of whole.inputs) {
    if (sizeOf(gradient.shape) === 0) continue
    const { shape, dtype } = normPieces(gradient)
    const buf = newBuf('arena', sizeOf(shape) * bytesOf(dtype), 'squares of a gradient')
    const out: Operand = { buf, shape, dtype, offset: 0, strides: stridesOf(shape) }
    const own = made({ ...whole, attrs: { ...whole.attrs, stage: 'pieces' }, inputs: [gradient], outputs: [out] })
    operands.push(out)
    if (gradient.buf.space !== 'arena') late.push(own)
    else pieces.set(gradient.buf, [...(pieces.get(gradient.buf) ?? []), own])
  }
  const head = hoisted(instructions.slice(0, at), new Set(pieces.keys())).flatMap((i) => [
    i,
    ...i.outputs.flatMap((o) => pieces.get(o.buf) ?? []),
  ])
  const madeAt = new Map(head.flatMap((i, n) => i.outputs.map((o) => [o.buf, n] as const)))
  const join = made({ ...whole, attrs: { ...whole.attrs, stage: 'join' }, inputs: operands })
  const tail = byGradient(
    instructions.slice(at + 1).flatMap((i) => {
      const parts = apart(i)
      return parts.length === 1 ? [i] : parts.map(made)
    }),
    madeAt,
  )
  return { lowered: { ...lowered, instructions: [...head, ...late, join, ...tail] }, norm: head.length + late.length }
}
