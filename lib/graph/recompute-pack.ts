import { opNamed } from '../ops/define.js'
import { quantBlocks } from '../ops/blockwise.js'
import { type DType, dtypeCode } from '../tensor/dtype.js'
import { type Shape, sizeOf, stridesOf } from '../tensor/shape.js'
import { bytesOf } from '../tensor/dtype.js'
import { type Buf, type Instruction, isWhole, newBuf, type Operand } from './instruction.js'
import { ELEMENTWISE } from './table.gen.js'

/** What an activation may be kept in between the forward and the backward pass, in the place of float32. */
export const PACKED = ['bfloat16', '8bit'] as const
export type Packed = (typeof PACKED)[number]

/** Values of fewer bytes are not worth an instruction. */
const LEAST = 1 << 14

/** How a value is kept in fewer bits: one instruction makes them, another the value that they stand for. */
export interface PackedWay {
  readonly pack: Omit<Instruction, 'workspace'>
  readonly unpack: Omit<Instruction, 'workspace'>
}

const whole = (buf: Buf, shape: Shape, dtype: DType): Operand => {
  return { buf, shape, dtype, offset: 0, strides: stridesOf(shape) }
}

const held = (shape: Shape, dtype: DType, label: string): Operand =>
  whole(newBuf('arena', sizeOf(shape) * bytesOf(dtype), label), shape, dtype)

const castOf = (from: DType, to: DType, shape: Shape) => ({
  constants: [],
  code: [ELEMENTWISE.indexOf('cast'), dtypeCode(from), dtypeCode(to), 0, -1, -1],
  outputs: [1],
  shape: [...shape],
})

/**
 * The position of the instruction that ends the forward pass of a training step, which looks at the loss; −1 where there is none. What is read before
 * it is never approximated.
 */
export const endOfForward = (instructions: readonly Instruction[]): number =>
  instructions.findIndex((i) => i.op.name === 'guard')

/**
 * How output `output` of an instruction is kept in fewer bits; undefined where it is not to be: numbers of another dtype, small ones, and what
 * goes with a result as its scale (statistics of norms, sums of softmax), on which everything else depends.
 */
export function packedWay(i: Instruction, output: number, packed: Packed): PackedWay | undefined {
  const value = i.outputs[output]
  const main = output === 0 || i.op.name === 'elementwise' || i.op.name === 'matmul'
  if (!main || value.dtype !== 'float32' || value.buf.space !== 'arena' || !isWhole(value)) return undefined
  if (value.buf.bytes < LEAST || value.buf.bytes !== 4 * sizeOf(value.shape)) return undefined
  const { shape } = value
  const { scope } = i
  const label = `${value.buf.label} in ${packed === '8bit' ? '8 bits' : packed}`
  if (packed === 'bfloat16') {
    const op = opNamed('elementwise')
    const low = held(shape, 'bfloat16', label)
    return {
      pack: { op, attrs: castOf('float32', 'bfloat16', shape), inputs: [value], outputs: [low], scope, packs: true },
      unpack: { op, attrs: castOf('bfloat16', 'float32', shape), inputs: [low], outputs: [value], scope, again: true },
    }
  }
  const attrs = { either: true }
  const low = [held(shape, 'uint8', label), held([quantBlocks(shape)], 'float32', label)]
  return {
    pack: { op: opNamed('quantizeBlockwise'), attrs, inputs: [value], outputs: low, scope, packs: true },
    unpack: { op: opNamed('dequantizeBlockwise'), attrs, inputs: low, outputs: [value], scope, again: true },
  }
}
