import { bf16Bits } from '../../tensor/bytes.js'

/** Element types of a GGUF file that steepest writes. */
export const GGUF_TYPES = {
  f32: { id: 0, fileType: 0, block: 1, bytes: 4 },
  f16: { id: 1, fileType: 1, block: 1, bytes: 2 },
  bf16: { id: 30, fileType: 32, block: 1, bytes: 2 },
  q8_0: { id: 8, fileType: 7, block: 32, bytes: 34 },
} as const
/** The name of an element type of a GGUF file. */
export type GgufType = keyof typeof GGUF_TYPES

const floats = new Float32Array(1)
const words = new Uint32Array(floats.buffer)

/** The bits of the float16 nearest to a float32, ties to even. */
export function f16Bits(x: number): number {
  floats[0] = x
  const bits = words[0]
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00
  // From 65520 on, what is nearest is infinite.
  if (magnitude >= 0x477ff000) return sign | 0x7c00
  if (magnitude < 0x38800000) {
    // Below 2^-14 the unit is 2^-24.
    const scaled = Math.abs(floats[0]) * 2 ** 24
    const down = Math.floor(scaled)
    const rest = scaled - down
    return sign | (rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down)
  }
  const rebased = magnitude - 0x38000000
  return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13)
}

/** Blocks of 32 numbers as whole numbers of 8 bits and a float16 unit, the greatest of them 127 units. */
function q8(values: Float32Array): Uint8Array {
  const { block, bytes } = GGUF_TYPES.q8_0
  const out = new Uint8Array((values.length / block) * bytes)
  const view = new DataView(out.buffer)
  for (let b = 0; b < values.length / block; b++) {
    let most = 0
    for (let i = 0; i < block; i++) most = Math.max(most, Math.abs(values[b * block + i]))
    const unit = Math.fround(most / 127)
    const inverse = unit === 0 ? 0 : Math.fround(1 / unit)
    view.setUint16(b * bytes, f16Bits(unit), true)
    for (let i = 0; i < block; i++) {
      const x = Math.fround(values[b * block + i] * inverse)
      view.setInt8(b * bytes + 2 + i, Math.sign(x) * Math.floor(Math.abs(x) + 0.5))
    }
  }
  return out
}

/** Numbers in an element type. */
export function encoded(values: Float32Array, type: GgufType): Uint8Array {
  if (type === 'f32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  if (type === 'q8_0') return q8(values)
  const bits = type === 'f16' ? f16Bits : bf16Bits
  return new Uint8Array(Uint16Array.from(values, bits).buffer)
}
