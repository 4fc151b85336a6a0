import type { DType } from '../tensor/dtype.js'

/** The element types of safetensors files, with their bits. */
export const FILE_DTYPES = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const

/** Element type as safetensors names it. */
export type FileDType = keyof typeof FILE_DTYPES

/** The name in a file of each of steepest's dtypes. */
export const fileDType: Record<DType, FileDType> = {
  float32: 'F32',
  bfloat16: 'BF16',
  float64: 'F64',
  int32: 'I32',
  uint8: 'U8',
}

type Numbers = Float32Array | Float64Array
type Widen = (bytes: Uint8Array) => Numbers

/** Typed views need aligned memory; a buffer of our own is. */
function aligned(bytes: Uint8Array): ArrayBuffer {
  const copy = new ArrayBuffer(bytes.byteLength)
  new Uint8Array(copy).set(bytes)
  return copy
}

let halfTable: Float32Array | undefined

/** float32 of every float16 bit pattern (IEEE 754 binary16). */
function halves(): Float32Array {
  if (halfTable) return halfTable
  const table = new Float32Array(65536)
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31
    const fraction = bits & 1023
    const size =
      exponent === 31
        ? fraction
          ? NaN
          : Infinity
        : exponent
          ? (1 + fraction / 1024) * 2 ** (exponent - 15)
          : fraction * 2 ** -24
    table[bits] = bits & 0x8000 ? -size : size
  }
  halfTable = table
  return table
}

/** float32 of an F8_E4M3 pattern (no infinities; all ones is NaN; bias 7). */
function e4m3(bits: number): number {
  const exponent = (bits >> 3) & 15
  const fraction = bits & 7
  const size = (bits & 127) === 127 ? NaN : exponent ? (1 + fraction / 8) * 2 ** (exponent - 7) : fraction * 2 ** -9
  return bits & 128 ? -size : size
}

const mapped = (n: number, f: (i: number) => number): Float32Array => {
  const out = new Float32Array(n)
  for (let i = 0; i < n; i++) out[i] = f(i)
  return out
}

/** Every value of a float32 list is exact there; the others go through float64. */
const WIDEN: Partial<Record<FileDType, Widen>> = {
  BOOL: (b) => Float32Array.from(b),
  U8: (b) => Float32Array.from(b),
  I8: (b) => Float32Array.from(new Int8Array(aligned(b))),
  U16: (b) => Float32Array.from(new Uint16Array(aligned(b))),
  I16: (b) => Float32Array.from(new Int16Array(aligned(b))),
  I32: (b) => Float64Array.from(new Int32Array(aligned(b))),
  U32: (b) => Float64Array.from(new Uint32Array(aligned(b))),
  I64: (b) => Float64Array.from(new BigInt64Array(aligned(b)), Number),
  U64: (b) => Float64Array.from(new BigUint64Array(aligned(b)), Number),
  F16: (b) => {
    const bits = new Uint16Array(aligned(b))
    const table = halves()
    return mapped(bits.length, (i) => table[bits[i]])
  },
  BF16: (b) => {
    const bits = new Uint16Array(aligned(b))
    const out = new Uint32Array(bits.length)
    for (let i = 0; i < bits.length; i++) out[i] = bits[i] << 16
    return new Float32Array(out.buffer)
  },
  F8_E5M2: (b) => {
    const table = halves()
    return mapped(b.length, (i) => table[b[i] << 8])
  },
  F8_E4M3: (b) => mapped(b.length, (i) => e4m3(b[i])),
  F32: (b) => new Float32Array(aligned(b)),
  F64: (b) => new Float64Array(aligned(b)),
}

const asBytes = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength)

/** float32 bits of a float64, rounded to odd: what is rounded again to fewer bits is then rounded once. */
function toOdd(x: Float64Array): Uint32Array {
  const f = Float32Array.from(x)
  const bits = new Uint32Array(f.buffer)
  for (let i = 0; i < f.length; i++) {
    if (f[i] === x[i] || Number.isNaN(x[i])) continue
    if (Math.abs(f[i]) > Math.abs(x[i])) bits[i]--
    bits[i] |= 1
  }
  return bits
}

/** Round to nearest even; a NaN stays one. */
function toBfloat16(x: Numbers): Uint8Array {
  const bits = x instanceof Float64Array ? toOdd(x) : new Uint32Array(x.buffer, x.byteOffset, x.length)
  const out = new Uint16Array(bits.length)
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i]
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16
  }
  return asBytes(out)
}

function toInteger(out: Int32Array | Uint8Array, low: number, high: number, x: Numbers, first: number): Uint8Array {
  for (let i = 0; i < x.length; i++) {
    if (!(x[i] >= low && x[i] <= high)) throw new RangeError(`${x[i]} at element ${first + i}`)
    out[i] = x[i]
  }
  return asBytes(out)
}

const NARROW: Record<DType, (x: Numbers, first: number) => Uint8Array> = {
  float32: (x) => asBytes(x instanceof Float32Array ? x : Float32Array.from(x)),
  float64: (x) => asBytes(x instanceof Float64Array ? x : Float64Array.from(x)),
  bfloat16: toBfloat16,
  int32: (x, first) => toInteger(new Int32Array(x.length), -(2 ** 31), 2 ** 31 - 1, x, first),
  uint8: (x, first) => toInteger(new Uint8Array(x.length), 0, 255, x, first),
}

const isFloating = (from: FileDType): boolean => from.startsWith('F') || from === 'BF16'

/** Whether numbers of a file can be read as `to`: floats and integers as floats, integers as integers. */
export const convertible = (from: FileDType, to: DType): boolean =>
  from === fileDType[to] || (WIDEN[from] !== undefined && !(isFloating(from) && (to === 'int32' || to === 'uint8')))

/**
 * Little-endian numbers of type `from` as bytes of type `to`, rounded once, to nearest even (integers above 2^53 twice).
 *
 * @throws RangeError where an integer does not fit, with its position; `first` is the position of the first number.
 */
export function convert(bytes: Uint8Array, from: FileDType, to: DType, first = 0): Uint8Array {
  const widen = WIDEN[from]
  if (!widen) throw new RangeError(`no conversion from ${from}`)
  return NARROW[to](widen(bytes), first)
}
