/** The dtypes, in the order of the native enum. Booleans are uint8 0 and 1. */
export const DTYPES = ['float32', 'bfloat16', 'float64', 'int32', 'uint8'] as const

/** Element type of a tensor. */
export type DType = (typeof DTYPES)[number]

/** What `read()` gives: bfloat16 is widened to Float32Array. */
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint8Array

const BYTES: Record<DType, number> = { float32: 4, bfloat16: 2, float64: 8, int32: 4, uint8: 1 }

/** Bytes of one element. */
export const bytesOf = (dtype: DType): number => BYTES[dtype]

export const isFloat = (dtype: DType): boolean => dtype === 'float32' || dtype === 'bfloat16' || dtype === 'float64'

export const dtypeCode = (dtype: DType): number => DTYPES.indexOf(dtype)

const RANK: Record<DType, number> = { uint8: 0, int32: 1, bfloat16: 2, float32: 3, float64: 4 }

/** The dtype that holds both: uint8 < int32 < bfloat16 < float32 < float64. */
export const promote = (a: DType, b: DType): DType => (RANK[a] >= RANK[b] ? a : b)
