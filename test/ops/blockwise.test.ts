import { expect, test } from 'vitest'
import { cast, dequantizeBlockwise, grad, quantizeBlockwise, sum, tensor } from '../../lib/index.js'
import { normals } from '../optim/reference.js'
import { cases } from './cases/blockwise.js'
import { checkCases } from './check.js'

checkCases(cases)

const codes = tensor(Uint8Array.from({ length: 256 }, (_, i) => i))
const units = tensor([1])

test('the values are dense near zero and reach the unit', async () => {
  const either = await dequantizeBlockwise({ codes, units }).read()
  const positive = await dequantizeBlockwise({ codes, units }, { signed: false }).read()
  expect([either[127], either[255], positive[0], positive[255]]).toEqual([0, 1, 0, 1])
  for (let i = 1; i < 256; i++) {
    expect(either[i]).toBeGreaterThan(either[i - 1])
    expect(positive[i]).toBeGreaterThan(positive[i - 1])
  }
  // One value below a millionth of the unit, half of all values in the last decade.
  expect([...either].filter((x) => x > 0.1).length).toBe(65)
  expect(either[128]).toBeLessThan(1e-6)
})

test('numbers come back within half a step, block by block', async () => {
  const numbers = Float32Array.from(normals(3, 1000), (x, i) => x * 10 ** -(i >> 8))
  const kept = quantizeBlockwise(tensor(numbers, { shape: [10, 100] }))
  expect([kept.codes.shape, kept.codes.dtype, kept.units.shape]).toEqual([[10, 100], 'uint8', [4]])
  const [back, unit] = [await dequantizeBlockwise(kept).read(), await kept.units.read()]
  for (let b = 0; b < 4; b++) {
    const block = numbers.slice(256 * b, 256 * b + 256)
    expect(unit[b]).toBe(Math.max(...block.map(Math.abs)))
    block.forEach((x, i) => expect(Math.abs(back[256 * b + i] - x)).toBeLessThanOrEqual(0.0102 * unit[b]))
  }
  // What came back stays as it is, where the number of the unit is one of the values.
  const again = quantizeBlockwise(tensor(numbers.map(Math.abs)), { signed: false })
  const twice = quantizeBlockwise(dequantizeBlockwise(again, { signed: false }), { signed: false })
  expect(await twice.codes.read()).toEqual(await again.codes.read())
})

test('a block of zeros has unit 1, and a scalar is a block', async () => {
  expect(await quantizeBlockwise(tensor(new Float32Array(300))).units.read()).toEqual(Float32Array.of(1, 1))
  const one = quantizeBlockwise(tensor(-3))
  expect([one.codes.shape, one.units.shape]).toEqual([[], [1]])
  expect(Math.abs((await dequantizeBlockwise(one).read())[0] + 3)).toBeLessThan(0.03)
})

test('what does not fit is told', () => {
  const x = tensor([1, 2, 3])
  expect(() => quantizeBlockwise(cast(x, 'float64'))).toThrow('float32')
  expect(() => dequantizeBlockwise({ codes: x, units })).toThrow('uint8')
  expect(() => dequantizeBlockwise({ codes, units: tensor([1, 2]) })).toThrow('a unit for every 256 codes')
  expect(() => quantizeBlockwise(x, { sign: true } as never)).toThrow('signed')
  expect(() => grad((y: typeof x) => sum(dequantizeBlockwise(quantizeBlockwise(y))))(x)).toThrow('straight-through')
})
