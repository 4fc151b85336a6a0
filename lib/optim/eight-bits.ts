import { SteepestError } from '../errors.js'
import { type Blockwise, CODES, dequantizeBlockwise, quantBlocks } from '../ops/blockwise.js'
import { full } from '../ops/shape.js'
import type { Shape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { RuleOptions } from './optimizer.js'

/** Options of optimizers that keep means of the gradient or of its square. */
export interface FusedOptions extends RuleOptions {
  /**
   * How states are kept: `8bit` in a quarter of the memory, as bitsandbytes does (blocks of 256 numbers share a unit; a float64 weight keeps
   * float64 states). A group may differ. Default `32bit`.
   */
  states?: '32bit' | '8bit'
  /** Tensors with fewer elements keep 32-bit states, in [0, ∞). Default 4096. */
  min8bitSize?: number
}

/** @internal Their names. */
export const STORAGE = ['states', 'min8bitSize'] as const

/** Whether the numbers of a state have either sign or are never negative, which tells the values that eight bits stand for. */
export type StateSign = 'either' | 'positive'

/** @internal From how many elements on the options ask for states in eight bits. */
export function eightBitsFrom(who: string, given: Readonly<Record<string, unknown>>): number {
  const { states = '32bit', min8bitSize = 4096 } = given
  if (states !== '32bit' && states !== '8bit')
    throw new SteepestError('OPTION', { who, rule: '`states` must be 32bit or 8bit', got: String(states) })
  if (typeof min8bitSize !== 'number' || !(min8bitSize >= 0))
    throw new SteepestError('OPTION', { who, rule: '`min8bitSize` must be 0 or more', got: String(min8bitSize) })
  return states === '8bit' ? min8bitSize : Infinity
}

/** @internal Whether the states of a parameter are codes, where those of `from` elements or more are. */
export const isBlockwise = (p: Tensor, from: number): boolean => p.dtype !== 'float64' && p.size >= from

/** @internal The slot of the units that belong to a slot of codes. */
export const unitsOf = (slot: string): string => `${slot}Units`

/** @internal A state that has one value everywhere, zero or more. */
export const blocksOf = (shape: Shape, value: number, sign: StateSign): Blockwise => ({
  codes: full(shape, value ? CODES.one : CODES.zero[sign], 'uint8'),
  units: full([quantBlocks(shape)], value, 'float32'),
})

/** @internal The numbers of a state. */
export const opened = (blocks: Blockwise, sign: StateSign): Tensor =>
  dequantizeBlockwise(blocks, { signed: sign === 'either' })
