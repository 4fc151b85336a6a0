import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, showShape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { OpRow } from './batching.js'
import { defineOp, FLOATS, requireDtype } from './define.js'
import { broadcastTo, reshape } from './shape.js'

type RotaryAttrs = { frequencies: number[]; interleaved: boolean; inverse: boolean; offset: number; positions: boolean }

const WHO = 'rotary'

// Every use is linear in x and turns by known angles, so the derivative is the turn back.
const rotaryRow: OpRow<RotaryAttrs> = defineOp<RotaryAttrs>({
  name: 'rotary',
  kind: 'kernel',
  doc: 'Turns pairs of components of [batch, time, heads, depth] by angles that grow with the position.',
  attrs: { frequencies: 'floats', interleaved: 'bool', inverse: 'bool', offset: 'int', positions: 'bool' },
  strided: [0],
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype }],
  vjp: ({ inputs: [, ...positions], grads: [g], attrs }) => [
    rotaryRow([g!, ...positions], { ...attrs, inverse: !attrs.inverse })[0],
    ...positions.map(() => null),
  ],
  batch: ({ inputs: [x, positions], batched, size, attrs }) => {
    const whole = batched[0] ? x : broadcastTo(x, [size, ...x.shape])
    const [, batch, time] = whole.shape
    const folded = reshape(whole, [size * batch, ...whole.shape.slice(2)])
    let given: Tensor[] = []
    if (positions) {
      const own = positions.shape.slice(batched[1] ? 1 : 0)
      const each = batched[1] ? reshape(positions, [size, ...(own.length === 1 ? [1, time] : own)]) : positions
      given = [
        batched[1] || own.length === 2
          ? reshape(broadcastTo(each, [size, batch, time]), [size * batch, time])
          : positions,
      ]
    }
    return [reshape(rotaryRow([folded, ...given], attrs)[0], whole.shape)]
  },
  flops: ([x]: readonly Aval[]) => 3 * sizeOf(x.shape),
  inplace: [[0, 0]],
})

/** Which pairs of components turn, and how fast. */
export interface RotaryOptions {
  /** Component pair i of `dim`/2 turns by base^(−2i/dim) per position; 10000 by default. */
  base?: number
  /** How many components turn, from the first; an even number, all by default. */
  dim?: number
  /** Angles per position of each pair, in place of those of `base` (for scaled contexts). */
  frequencies?: readonly number[]
  /** Pairs are neighbours (2i, 2i + 1), as in the paper; by default they lie dim/2 apart, as in Llama's and GPT-NeoX's checkpoints. */
  interleaved?: boolean
  /** Position of the first row; 0 by default. */
  offset?: number
  /** Positions, int32 [T] or [B, T]; `offset` is added to them. */
  positions?: Tensor
}

/**
 * Rotary positions (Su et al., "RoFormer", 2021): pairs of components of x [B, T, H, D] are turned by an angle proportional to the
 * position t, so that products of queries and keys depend on distances. float32, bfloat16 or float64; angles are computed in float64.
 */
export function rotary(x: Tensor, options: RotaryOptions = {}): Tensor {
  checkOptions(WHO, options, ['base', 'dim', 'frequencies', 'interleaved', 'offset', 'positions'])
  requireDtype(WHO, x, FLOATS)
  if (x.rank !== 4) throw new SteepestError('SHAPE', { who: WHO, rule: 'x must be [B, T, H, D]', got: showAval(x) })
  const [batch, time, , depth] = x.shape
  const { base = 10000, interleaved = false, offset = 0, positions } = options
  const dim = options.dim ?? (options.frequencies ? 2 * options.frequencies.length : depth)
  if (!Number.isInteger(dim) || dim % 2 !== 0 || dim < 0 || dim > depth) {
    throw new SteepestError('OPTION', {
      who: WHO,
      rule: `\`dim\` must be an even number of at most ${depth}`,
      got: String(dim),
    })
  }
  if (!(base > 0)) throw new SteepestError('OPTION', { who: WHO, rule: '`base` must be positive', got: String(base) })
  if (!Number.isInteger(offset))
    throw new SteepestError('OPTION', { who: WHO, rule: '`offset` must be a whole number', got: String(offset) })
  const frequencies = options.frequencies
    ? [...options.frequencies]
    : Array.from({ length: dim / 2 }, (_, i) => base ** ((-2 * i) / dim))
  if (frequencies.length !== dim / 2) {
    throw new SteepestError('OPTION', {
      who: WHO,
      rule: `\`frequencies\` must be ${dim / 2} numbers for ${dim} components`,
      got: String(frequencies.length),
    })
  }
  if (positions) {
    if (!sameShape(positions.shape, [time]) && !sameShape(positions.shape, [batch, time])) {
      throw new SteepestError('SHAPE', {
        who: WHO,
        rule: `positions must be ${showShape([time])} or ${showShape([batch, time])}`,
        got: showAval(positions),
      })
    }
    requireDtype(WHO, positions, ['int32'], 'positions')
  }
  return rotaryRow([x, ...(positions ? [positions] : [])], {
    frequencies,
    interleaved,
    inverse: false,
    offset,
    positions: positions !== undefined,
  })[0]
}
