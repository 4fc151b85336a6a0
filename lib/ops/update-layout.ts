import { type Aval, sizeOf } from '../tensor/shape.js'
import { ruleNamed } from './rules.js'

/** How a weight that is stored in fewer bits than it is computed in gets rounded. */
export type Rounding = 'nearest' | 'stochastic'

/** How the states of a rule are stored. */
export type States = 'full' | 'blockwise'

/** Attributes of the op `update` that say which operands it has. */
export interface UpdateKind {
  readonly rule: string
  /** A scalar multiplies the gradients. */
  readonly scale: boolean
  readonly rounding: Rounding
  /** bfloat16 weights have hidden low bits. */
  readonly master: boolean
  /** How states are kept: in the precision of the step, or in eight bits, as codes and units (ops/blockwise.ts). */
  readonly states: States
}

/** Positions of its operands: args, what the attributes announce, then of each parameter p, g, what the attributes announce, the slots. */
export interface UpdateLayout {
  /** Of the scale and the key; −1 where there is none. */
  readonly scale: number
  readonly key: number
  /** Of the first parameter. */
  readonly first: number
  /** Operands of a parameter, and positions among them. */
  readonly inputs: number
  readonly low: number
  readonly firstSlot: number
  /** Outputs of a parameter. */
  readonly outputs: number
}

export function updateLayout(kind: UpdateKind): UpdateLayout {
  const slots = ruleNamed(kind.rule).slots.length * (kind.states === 'blockwise' ? 2 : 1)
  let at = 1
  const scale = kind.scale ? at++ : -1
  const key = kind.rounding === 'stochastic' ? at++ : -1
  const low = kind.master ? 2 : -1
  const firstSlot = kind.master ? 3 : 2
  return { scale, key, first: at, low, firstSlot, inputs: firstSlot + slots, outputs: firstSlot - 1 + slots }
}

/** Numbers whose squares are summed to one piece of a norm; the kernels of `globalNorm` cut so too. */
const NORM_PIECE = 32768

/** The sums of squares of a tensor, as `globalNorm` gives them in pieces. */
export const normPieces = ({ shape }: Aval): Aval => ({
  shape: [Math.ceil(sizeOf(shape) / NORM_PIECE)],
  dtype: 'float64',
})
