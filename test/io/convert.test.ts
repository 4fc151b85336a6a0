import { describe, expect, test } from 'vitest'
import { convert, convertible, type FileDType } from '../../lib/io/convert.js'
import { openSafetensors, writeSafetensors } from '../../lib/io/safetensors.js'
import type { DType } from '../../lib/tensor/dtype.js'
import { join } from 'node:path'
import { freshFolder } from './child.js'

const bytes = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength)
const f32 = (b: Uint8Array) => new Float32Array(b.slice().buffer)
const u16 = (b: Uint8Array) => new Uint16Array(b.slice().buffer)

/** The bfloat16 nearest to x, ties to even, found by looking at both neighbours. */
function nearestBfloat16(x: number): number {
  const view = new DataView(new ArrayBuffer(4))
  const value = (bits: number) => (view.setUint32(0, bits << 16), view.getFloat32(0))
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0
  let low = 0
  let high = 0x7f80
  const size = Math.abs(x)
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (value(middle) <= size) low = middle
    else high = middle
  }
  const top = high === 0x7f80 ? 2 ** 128 : value(high)
  const below = size - value(low)
  const above = top - size
  return sign | (below < above || (below === above && low % 2 === 0) ? low : high)
}

describe('conversions', () => {
  test('float16: all 65536 patterns', () => {
    const out = f32(convert(bytes(Uint16Array.from({ length: 65536 }, (_, i) => i)), 'F16', 'float32'))
    const at = (bits: number) => out[bits]
    expect([at(0), at(0x3c00), at(0xc000), at(0x7bff), at(0x0400), at(1), at(0x3555)]).toEqual([
      0,
      1,
      -2,
      65504,
      2 ** -14,
      2 ** -24,
      0.333251953125,
    ])
    expect([at(0x7c00), at(0xfc00)]).toEqual([Infinity, -Infinity])
    expect(Object.is(at(0x8000), -0)).toBe(true)
    for (let i = 0x7c01; i < 0x8000; i++) expect(at(i)).toBeNaN()
    for (let i = 1; i < 0x7c00; i++) expect(at(i)).toBeGreaterThan(at(i - 1))
  })

  test('float32 and float64 to bfloat16 are rounded once, to nearest even', () => {
    const special = [
      0,
      -0,
      1,
      -1,
      3.3895313892515355e38,
      3.4e38,
      1e300,
      2 ** -133,
      2 ** -134,
      2 ** -134 * 1.0001,
      Infinity,
      -Infinity,
    ]
    // Just above a tie of bfloat16 by less than float32 can tell: rounding twice would go the wrong way.
    const ties = [
      1 + 2 ** -8 + 2 ** -40,
      1 + 2 ** -8 - 2 ** -40,
      1 + 2 ** -8,
      1 + 3 * 2 ** -8,
      -(1 + 2 ** -8 + 2 ** -40),
    ]
    const many = Array.from({ length: 3000 }, (_, i) => Math.sin(i * 12.9898) * 2 ** ((i % 250) - 125))
    const list = [...special, ...ties, ...many]
    expect([...u16(convert(bytes(Float64Array.from(list)), 'F64', 'bfloat16'))]).toEqual(list.map(nearestBfloat16))
    const singles = list.map(Math.fround)
    expect([...u16(convert(bytes(Float32Array.from(singles)), 'F32', 'bfloat16'))]).toEqual(
      singles.map(nearestBfloat16),
    )
    const nan = u16(convert(bytes(Uint32Array.of(0x7f800001, 0xffffffff)), 'F32', 'bfloat16'))
    expect([...nan].every((b) => (b & 0x7f80) === 0x7f80 && (b & 0x7f) !== 0)).toBe(true)
  })

  test('bfloat16 and float8 to float32', () => {
    expect([...f32(convert(bytes(Uint16Array.of(0x3f80, 0xc049, 1)), 'BF16', 'float32'))]).toEqual([
      1,
      -3.140625,
      2 ** -133,
    ])
    const e4m3 = f32(convert(Uint8Array.of(0x38, 0x7e, 0xfe, 1, 0x7f, 0x08), 'F8_E4M3', 'float32'))
    expect([...e4m3]).toEqual([1, 448, -448, 2 ** -9, NaN, 2 ** -6])
    expect([...f32(convert(Uint8Array.of(0x3c, 0x7b, 0x7c, 1), 'F8_E5M2', 'float32'))]).toEqual([
      1,
      57344,
      Infinity,
      2 ** -16,
    ])
  })

  test('integers', () => {
    const wide = bytes(BigInt64Array.of(-5n, 2147483647n, -2147483648n))
    expect([...new Int32Array(convert(wide, 'I64', 'int32').slice().buffer)]).toEqual([-5, 2147483647, -2147483648])
    expect(() => convert(bytes(BigInt64Array.of(0n, 2147483648n)), 'I64', 'int32', 10)).toThrow(
      '2147483648 at element 11',
    )
    expect(() => convert(bytes(Int32Array.of(-1)), 'I32', 'uint8')).toThrow('-1 at element 0')
    expect([...convert(Uint8Array.of(0, 1), 'BOOL', 'uint8')]).toEqual([0, 1])
    expect([...f32(convert(bytes(Int32Array.of(2 ** 24 + 1)), 'I32', 'float32'))]).toEqual([2 ** 24])
    expect([...f32(convert(bytes(Int8Array.of(-128)), 'I8', 'float32'))]).toEqual([-128])
    expect([...f32(convert(bytes(BigUint64Array.of(2n ** 63n)), 'U64', 'float32'))]).toEqual([2 ** 63])
  })

  test('what is lossy by nature is refused', () => {
    for (const from of ['F16', 'F32', 'F64', 'BF16', 'F8_E4M3'] as FileDType[]) {
      for (const to of ['int32', 'uint8'] as DType[]) expect(convertible(from, to)).toBe(false)
    }
    expect(convertible('C64', 'float32')).toBe(false)
    expect(convertible('F4', 'float32')).toBe(false)
    expect(convertible('I64', 'int32')).toBe(true)
    expect(convertible('F16', 'bfloat16')).toBe(true)
  })

  test('large tensors are converted piece by piece, into targets that are not aligned', async () => {
    const path = join(freshFolder('st'), 'x.safetensors')
    const n = 1_500_001
    const data = Float64Array.from({ length: n }, (_, i) => i / 7)
    const words = BigInt64Array.from({ length: n }, (_, i) => (i === n - 2 ? 2n ** 40n : BigInt(i)))
    await writeSafetensors(path, [
      { name: 'x', dtype: 'float64', shape: [n], read: () => bytes(data) },
      { name: 'i', dtype: 'I64', shape: [n], read: () => bytes(words) },
    ])
    const file = await openSafetensors(path)
    const memory = new Uint8Array(n * 4 + 1)
    await file.readInto('x', memory.subarray(1), 'float32')
    const out = new Float32Array(memory.slice(1).buffer)
    expect(out.every((v, i) => v === Math.fround(i / 7))).toBe(true)
    await expect(file.readInto('i', new Uint8Array(n * 4), 'int32')).rejects.toThrow(
      `x.safetensors: i] every number fits int32; got ${2 ** 40} at element ${n - 2}`,
    )
    await file.close()
  })

  test('for memory that JavaScript cannot see, pieces come with their places', async () => {
    const path = join(freshFolder('st'), 'x.safetensors')
    const n = 1_500_001
    const data = Float64Array.from({ length: n }, (_, i) => i / 7)
    await writeSafetensors(path, [{ name: 'x', dtype: 'float64', shape: [n], read: () => bytes(data) }])
    const file = await openSafetensors(path)
    for (const as of [undefined, 'float64', 'float32'] as const) {
      const out = as === 'float32' ? new Float32Array(n) : new Float64Array(n)
      const offsets: number[] = []
      await file.readPieces(
        'x',
        (piece, offset) => {
          offsets.push(offset)
          bytes(out).set(piece, offset)
        },
        as,
      )
      expect(offsets).toHaveLength(3)
      expect(out.every((v, i) => v === (as === 'float32' ? Math.fround(i / 7) : i / 7))).toBe(true)
    }
    await expect(file.readPieces('x', () => {}, 'int32')).rejects.toThrow('a F64 of a file cannot be read as int32')
    await expect(file.readPieces('y', () => {})).rejects.toThrow('there is no tensor "y" in it')
    await file.close()
  })
})
