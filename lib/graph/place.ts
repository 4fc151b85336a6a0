import { bytesOf } from '../tensor/dtype.js'
import { allocate } from './allocate.js'
import {
  type Buf,
  finalBuf,
  inPlacePairs,
  type Instruction,
  isWhole,
  type Lowered,
  type Operand,
} from './instruction.js'

export interface Plan {
  readonly instructions: readonly Instruction[]
  /** How many there were before any was added or left out for memory. */
  readonly count: number
  /** One per input of the graph, then one per output that has memory of its own. */
  readonly externals: readonly Buf[]
  /** For each output: the external that holds it. An output that replaced a donated input names the input's. */
  readonly outputs: readonly number[]
  readonly constants: Uint8Array
  readonly arenaBytes: number
  readonly bufs: readonly Buf[]
  /** Instructions that compute a value again. */
  readonly recomputed: number
  /** Values that are kept in fewer bits between the passes. */
  readonly packed: number
}

/** Gives everything a place in the arena. What is given stays as it is. */
export function placed(lowered: Lowered): Plan {
  const copies = new Map<Buf, Buf>()
  const copyOf = (buf: Buf): Buf => {
    let copy = copies.get(buf)
    if (!copy) copies.set(buf, (copy = { ...buf }))
    return copy
  }
  const moved = (o: Operand): Operand => ({ ...o, buf: copyOf(o.buf) })
  const externals = lowered.externals.map(copyOf)
  const instructions = lowered.instructions.map((i) => ({
    ...i,
    inputs: i.inputs.map(moved),
    outputs: i.outputs.map(moved),
    workspace: copyOf(i.workspace),
  }))
  instructions.forEach(({ inputs, outputs, workspace }, at) => {
    for (const buf of [...inputs, ...outputs].map((o) => o.buf).concat(workspace)) {
      buf.first = Math.min(buf.first, at)
      buf.last = Math.max(buf.last, at)
    }
  })
  reuseInPlace(instructions)
  const bufs = [...copies.values()]
  const arenaBytes = allocate(bufs.filter((b) => b.space === 'arena' && !b.into && b.bytes > 0 && b.last >= 0))
  const { outputs, constants, count } = lowered
  const packed = instructions.filter((i) => i.packs).length
  // What brings such a value back computes nothing again.
  const recomputed = instructions.filter((i) => i.again).length - unpacking(instructions)
  return { instructions, count, externals, outputs, constants, arenaBytes, bufs, recomputed, packed }
}

/** Instructions that bring back values from fewer bits. */
function unpacking(instructions: readonly Instruction[]): number {
  const packed = new Set(instructions.filter((i) => i.packs).flatMap((i) => i.outputs.map((o) => o.buf)))
  return instructions.filter((i) => i.again && i.inputs.some((o) => packed.has(o.buf))).length
}

/** Lets an output take the place of an input that is read here for the last time. */
function reuseInPlace(instructions: readonly Instruction[]): void {
  instructions.forEach((instruction, at) => {
    const used = new Set<Buf>()
    for (const [o, i] of inPlacePairs(instruction)) {
      const out = instruction.outputs[o]
      const input = instruction.inputs[i]
      if (out === undefined || input === undefined) continue
      const from = finalBuf(input.buf)
      const to = finalBuf(out.buf)
      if (from === to || to.space !== 'arena' || from.space !== 'arena' || to.into || to.first !== at) continue
      if (from.last !== at || used.has(from) || used.has(to)) continue
      if (!isWhole(input) || !isWhole(out) || bytesOf(input.dtype) !== bytesOf(out.dtype) || from.bytes !== to.bytes)
        continue
      // Another operand of the same buffer (a view of it) would be read after it was overwritten.
      if (instruction.inputs.some((other, j) => j !== i && finalBuf(other.buf) === from && !isWhole(other))) continue
      to.into = from
      from.last = Math.max(from.last, to.last)
      used.add(from)
      used.add(to)
    }
  })
}
