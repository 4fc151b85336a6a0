import type { Attrs, OpDef } from '../ops/define.js'
import type { Aval } from '../tensor/shape.js'
import type { Node } from '../tensor/tensor.js'
import { isContiguous, type Layout } from './views.js'

/** A piece of memory that values live in. */
export interface Buf {
  space: 'arena' | 'external' | 'constant'
  bytes: number
  /** Byte offset in the arena or among the constants; number of the external. */
  at: number
  /** First and last instruction that touch it. */
  first: number
  last: number
  /** Another buffer whose place this one takes. */
  into?: Buf
  /** What it holds, for reports: the op and module path of its first writer. */
  label: string
}

export interface Operand extends Layout, Aval {
  readonly buf: Buf
}

export interface Instruction {
  readonly op: OpDef
  readonly attrs: Attrs
  readonly inputs: readonly Operand[]
  readonly outputs: readonly Operand[]
  readonly scope: string
  readonly workspace: Buf
  /** The node it came from; copies that the plan puts in have none. */
  readonly node?: Node
  /** Computes again what another instruction has computed. */
  readonly again?: boolean
  /** Makes what a value is kept in, in fewer bits, until the backward pass. */
  readonly packs?: boolean
}

/** A graph as instructions in order, on memory that has no places yet. */
export interface Lowered {
  readonly instructions: readonly Instruction[]
  /** How many there are before any is added or left out for memory. */
  readonly count: number
  readonly externals: readonly Buf[]
  readonly outputs: readonly number[]
  readonly constants: Uint8Array
  /** Scratch bytes that an instruction asks for. */
  readonly workspace: (i: Omit<Instruction, 'workspace'>) => number
}

/** Memory that nothing touches yet. */
export const newBuf = (space: Buf['space'], bytes: number, label: string, at = 0): Buf => ({
  space,
  bytes,
  at,
  first: Infinity,
  last: -1,
  label,
})

export const finalBuf = (buf: Buf): Buf => {
  let at = buf
  while (at.into) at = at.into
  return at
}

/** Whether an operand is all of a buffer, in order. */
export const isWhole = (o: Operand): boolean => o.offset === 0 && isContiguous(o.shape, o.strides)

/** The pairs [output, input] of which the output may take the place of the input, where that is read for the last time. */
export function inPlacePairs({ op, inputs, outputs }: Instruction): readonly (readonly [number, number])[] {
  if (op.name !== 'elementwise') return op.inplace ?? []
  return outputs.flatMap((_, o) => inputs.map((_, i) => [o, i] as const))
}
