import { SteepestError } from '../errors.js'
import type { Attrs, AttrType, OpDef } from '../ops/define.js'
import type { Graph } from './graph.js'
import { bytesOf, type DType, dtypeCode } from '../tensor/dtype.js'
import type { Aval } from '../tensor/shape.js'
import { finalBuf, type Instruction, type Operand } from './instruction.js'
import type { Plan } from './place.js'
import { KERNELS, TABLE_HASH } from './table.gen.js'

const MAGIC = 0x57ee9e57
const SPACES = ['arena', 'external', 'constant'] as const
/** The plan of a graph that is the body of an instruction. */
export type PlanBody = (graph: Graph) => Plan

const opCodes = new Map<string, number>()

function opCode(name: string): number {
  if (opCodes.size === 0) KERNELS.forEach((kernel, i) => opCodes.set(kernel, i))
  const code = opCodes.get(name)
  if (code === undefined) throw new Error(`op ${name} has no kernel`)
  return code
}

/** A program within a program: the externals of its outputs, its constants, its words. */
function pushBody(words: number[], plan: Plan, body: PlanBody): void {
  words.push(plan.outputs.length, ...plan.outputs)
  // Constants lie in steps of eight bytes.
  const constants = new Uint32Array(plan.constants.buffer, plan.constants.byteOffset, plan.constants.length / 4)
  words.push(constants.length)
  for (const word of constants) words.push(word)
  const program = encode(plan, body)
  words.push(program.length)
  for (const word of program) words.push(word)
}

function pushAttr(
  words: number[],
  op: OpDef,
  name: string,
  type: AttrType,
  value: Attrs[string],
  body: PlanBody,
): void {
  if (type === 'ints' || type === 'floats') {
    const list = value as readonly number[]
    words.push(list.length, ...list)
  } else if (type === 'bool') words.push(value ? 1 : 0)
  else if (type === 'dtype') words.push(dtypeCode(value as DType))
  else if (type === 'graph') pushBody(words, body(value as Graph), body)
  else if (type === 'int' || type === 'float') words.push(value as number)
  else if (Array.isArray(type)) {
    const at = type.indexOf(value as string)
    if (at < 0)
      throw new SteepestError('OPTION', {
        who: op.name,
        rule: `\`${name}\` must be one of ${type.join(', ')}`,
        got: String(value),
      })
    words.push(at)
  } else throw new Error(`attribute ${name} of ${op.name} cannot be encoded`)
}

function pushOperand(
  words: number[],
  o: Aval & { offset: number; strides: readonly number[] },
  space: number,
  index: number,
  base: number,
): void {
  words.push(
    space,
    index,
    base + o.offset * bytesOf(o.dtype),
    dtypeCode(o.dtype),
    o.shape.length,
    ...o.shape,
    ...o.strides,
  )
}

function pushPlaced(words: number[], o: Operand): void {
  const buf = finalBuf(o.buf)
  const external = buf.space === 'external'
  pushOperand(words, o, SPACES.indexOf(buf.space), external ? buf.at : 0, external ? 0 : buf.at)
}

function pushInstruction(
  words: number[],
  i: Omit<Instruction, 'workspace'>,
  workspace: readonly [number, number],
  operand: (words: number[], o: Operand) => void,
  body: PlanBody,
): void {
  const attrs: number[] = []
  for (const [name, type] of Object.entries(i.op.attrs)) pushAttr(attrs, i.op, name, type, i.attrs[name], body)
  words.push(opCode(i.op.name), ...workspace, i.inputs.length, i.outputs.length, attrs.length)
  for (const o of i.inputs) operand(words, o)
  for (const o of i.outputs) operand(words, o)
  // Not spread: tables among the attributes can be longer than a call takes arguments.
  for (const word of attrs) words.push(word)
}

/** One instruction by itself, to ask the backend for its scratch. */
export function encodeAlone(i: Omit<Instruction, 'workspace'>, body: PlanBody): Float64Array {
  const words: number[] = []
  pushInstruction(words, i, [0, 0], (w, o) => pushOperand(w, o, 0, 0, Math.max(0, -o.offset) * bytesOf(o.dtype)), body)
  return Float64Array.from(words)
}

/** The words of a program; native/runtime/program.cc reads and checks them. */
export function encode(plan: Plan, body: PlanBody): Float64Array {
  const written = new Set(plan.instructions.flatMap((i) => i.outputs.map((o) => finalBuf(o.buf))))
  const words: number[] = [MAGIC, Number.parseInt(TABLE_HASH, 16), plan.externals.length]
  for (const buf of plan.externals) words.push(buf.bytes, written.has(buf) ? 1 : 0)
  words.push(plan.arenaBytes, plan.instructions.length)
  for (const i of plan.instructions) {
    pushInstruction(words, i, [i.workspace.bytes > 0 ? i.workspace.at : 0, i.workspace.bytes], pushPlaced, body)
  }
  return Float64Array.from(words)
}
