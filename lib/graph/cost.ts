import { bytesOf } from '../tensor/dtype.js'
import { sizeOf } from '../tensor/shape.js'
import type { Instruction } from './instruction.js'

/** What a machine does in a millisecond. Only the ratio of the two matters to a choice. */
export interface Speed {
  /** Floating-point operations of large float32 products. */
  readonly flops: number
  /** Bytes that elementwise work reads and writes. */
  readonly bytes: number
}

/** Two cores of an EPYC (Zen 5), as measured; other CPUs have about the same ratio. */
export const TYPICAL: Speed = { flops: 2.4e8, bytes: 2e7 }

/** Share of the speed of a large product that the work of an op reaches, as measured; ops that are not here reach `OTHER`. */
const SHARE: Readonly<Record<string, number>> = {
  matmul: 0.8,
  linearCrossEntropy: 0.7,
  linearCrossEntropyBackward: 0.7,
  linearCrossEntropyWithGradients: 0.7,
  attention: 0.4,
  attentionBackward: 0.4,
}
const OTHER = 0.1
/** Operations that one step of an elementwise chain takes for one number, functions such as tanh among them. */
const STEP_FLOPS = 4
/** Share of the steps on which state is revised, where it is revised at some steps only: bases, blocks of parameters. */
const DUE = 0.02
/** Milliseconds that any instruction takes. */
const LEAST = 0.003

/** Floating-point operations of an instruction, from its row; one per element of the output where the row does not say. */
export function flopsOf({ op, inputs, outputs, attrs }: Instruction): number {
  if (op.name === 'elementwise') {
    const steps = (attrs.code as readonly number[]).length / 6
    return STEP_FLOPS * steps * outputs.reduce((n, o) => Math.max(n, sizeOf(o.shape)), 0)
  }
  return op.flops?.(inputs, outputs, attrs) ?? outputs.reduce((n, o) => n + sizeOf(o.shape), 0)
}

/** Rows of a product at which it reaches half of what it reaches with many. */
const HALF_ROWS = 24

const shareOf = ({ op, inputs }: Instruction): number => {
  const share = SHARE[op.name] ?? OTHER
  if (op.name !== 'matmul') return share
  const least = Math.min(...inputs.slice(0, 2).flatMap((o) => o.shape.slice(-2)))
  return (share * least) / (least + HALF_ROWS)
}

/** Milliseconds that an instruction is expected to take. */
export function millisecondsOf(i: Instruction, speed: Speed = TYPICAL): number {
  const moved = [...i.inputs, ...i.outputs].reduce((n, o) => n + sizeOf(o.shape) * bytesOf(o.dtype), 0)
  const work = flopsOf(i) / (speed.flops * shareOf(i))
  return LEAST + (i.op.name === 'revise' ? DUE : 1) * Math.max(work, moved / speed.bytes)
}
