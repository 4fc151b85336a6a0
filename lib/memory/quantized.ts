import { concat } from '../ops/assemble.js'
import { abs, add, cast, div, floor, greaterEqual, logicalAnd, mul, round, sub, where } from '../ops/elementwise.js'
import { max, mean, min, sum } from '../ops/reduce.js'
import { full, reshape, slice } from '../ops/shape.js'
import { type Shape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Projector } from './projector.js'

/** Numbers that share a scale and a zero. */
const GROUP = 256

/** A tensor in few bits: codes, and the scale and the least number of each group. */
export interface Quantized {
  /** uint8 [groups, 256], or [groups, 128] with two codes in a byte. */
  readonly codes: Tensor
  readonly scales: Tensor
  readonly zeros: Tensor
}

/** Rounds to 2^bits values between the least and the largest number of each group of 256. */
export function quantize(x: Tensor, bits: 4 | 8): Quantized {
  const groups = Math.ceil(x.size / GROUP)
  const flat = reshape(x, [x.size])
  // The rest of the last group is a copy of its last number, which changes neither bound.
  const rest = groups * GROUP - x.size
  const last = slice(flat, [[x.size - 1, x.size]])
  const filled = rest > 0 ? concat([flat, mul(full([rest], 1, x.dtype), last)], { axis: 0 }) : flat
  const rows = reshape(filled, [groups, GROUP])
  const zeros = min(rows, { axis: 1, keepDims: true })
  const range = div(sub(max(rows, { axis: 1, keepDims: true }), zeros), 2 ** bits - 1)
  const scales = where(range, range, 1)
  const whole = round(div(sub(rows, zeros), scales))
  const byte = (t: Tensor) => cast(t, 'uint8')
  const codes =
    bits === 8
      ? byte(whole)
      : byte(add(slice(whole, [null, [0, GROUP / 2]]), mul(slice(whole, [null, [GROUP / 2, GROUP]]), 16)))
  return { codes, scales, zeros }
}

/** The numbers that codes stand for, in this shape and the dtype of the scales. */
export function dequantize({ codes, scales, zeros }: Quantized, shape: Shape): Tensor {
  const wide = cast(codes, scales.dtype)
  const high = floor(div(wide, 16))
  const whole = codes.shape[1] === GROUP ? wide : concat([sub(wide, mul(high, 16)), high], { axis: 1 })
  const flat = reshape(add(mul(whole, scales), zeros), [codes.shape[0] * GROUP])
  return reshape(slice(flat, [[0, sizeOf(shape)]]), shape)
}

/** The choice of a projector, held in few bits. `shapes` are those of what it holds, float tensors. */
export function quantizedProjector(inner: Projector, shapes: readonly Shape[], bits: 4 | 8): Projector {
  const wide = (held: readonly Tensor[]): Tensor[] =>
    shapes.map((shape, i) => dequantize({ codes: held[3 * i], scales: held[3 * i + 1], zeros: held[3 * i + 2] }, shape))
  const narrow = (held: readonly Tensor[]): Tensor[] =>
    held.flatMap((t) => {
      const { codes, scales, zeros } = quantize(t, bits)
      return [codes, scales, zeros]
    })
  const { turn, basisOf } = inner
  return {
    ...inner,
    slots: inner.slots.flatMap((slot) => [slot, `${slot}Scale`, `${slot}Zero`]),
    first: (key) => narrow(inner.first(key)),
    choose: (now) => narrow(inner.choose({ ...now, held: wide(now.held) })),
    down: (held, x) => inner.down(wide(held), x),
    up: (held, low) => inner.up(wide(held), low),
    put: (held, outside, low) => inner.put(wide(held), outside, low),
    basisOf: basisOf && ((held) => basisOf(wide(held))),
    turn: turn && ((before, now, low, squares) => turn(wide(before), wide(now), low, squares)),
  }
}

/** How a projector that changes little is chosen less often. */
export interface Laziness {
  /** Steps between two choices at first. */
  readonly gap: number
  /** How alike the first vectors of two choices must be, |cosine|, in the mean of the last `window` choices. */
  readonly threshold: number
  readonly window: number
}

/** The largest gap, so that doubling it never overflows. */
const MOST = 2 ** 29

/** A projector of bases whose gap doubles while its first vector stays much the same: Q-GaLore's lazy refresh. */
export function lazyProjector(inner: Projector, { gap, threshold, window }: Laziness): Projector {
  const own = (held: readonly Tensor[]) => held.slice(0, -2)
  const { turn, basisOf } = inner
  return {
    ...inner,
    slots: [...inner.slots, 'alike', 'gap'],
    first: (key) => [...inner.first(key), full([window], -1), full([], gap, 'int32')],
    choose(now) {
      const [alike, every] = now.held.slice(-2)
      const held = own(now.held)
      const next = inner.choose({ ...now, held })
      const vector = (list: readonly Tensor[]) => slice(basisOf!(list), [null, [0, 1]])
      const cosine = abs(sum(mul(vector(held), vector(next))))
      const queue = concat([slice(alike, [[1, window]]), reshape(cast(cosine, 'float32'), [1])], { axis: 0 })
      // What was before the first choice was chosen by nobody.
      const recent = where(now.first, alike, queue)
      const calm = logicalAnd(greaterEqual(min(recent), 0), greaterEqual(mean(recent), threshold))
      const longer = where(greaterEqual(every, MOST), every, mul(every, 2))
      return [...next, recent, where(calm, longer, every)]
    },
    down: (held, x) => inner.down(own(held), x),
    up: (held, low) => inner.up(own(held), low),
    put: (held, outside, low) => inner.put(own(held), outside, low),
    turn: turn && ((before, now, low, squares) => turn(own(before), own(now), low, squares)),
    gapOf: (held) => held[held.length - 1],
  }
}
