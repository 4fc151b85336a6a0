import type { DType, TypedArray } from './dtype.js'

const f32 = new Float32Array(1)
const u32 = new Uint32Array(f32.buffer)

/** The bits of the nearest bfloat16 (ties to even; NaN stays NaN). */
export function bf16Bits(x: number): number {
  f32[0] = x
  const bits = u32[0]
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff
}

/** Numbers as they lie in native memory. Whole numbers are truncated toward zero; booleans are 0 and 1. */
export function toBytes(values: TypedArray | readonly number[], dtype: DType): ArrayBufferView {
  switch (dtype) {
    case 'float32':
      return values instanceof Float32Array ? values : Float32Array.from(values)
    case 'float64':
      return values instanceof Float64Array ? values : Float64Array.from(values)
    case 'int32':
      return values instanceof Int32Array ? values : Int32Array.from(values)
    case 'uint8':
      return values instanceof Uint8Array ? values : Uint8Array.from(values)
    case 'bfloat16':
      return Uint16Array.from(values, bf16Bits)
  }
}

/** An array that bytes of `dtype` are read into, and what the user gets from it. */
export function fromBytes(size: number, dtype: DType): { target: ArrayBufferView; values: () => TypedArray } {
  if (dtype === 'bfloat16') {
    const target = new Uint16Array(size)
    return { target, values: () => new Float32Array(Uint32Array.from(target, (b) => b << 16).buffer) }
  }
  const make = { float32: Float32Array, float64: Float64Array, int32: Int32Array, uint8: Uint8Array }[dtype]
  const target = new make(size)
  return { target, values: () => target }
}
