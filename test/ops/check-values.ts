import { expect } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { tensor } from '../../lib/ops/shape.js'
import { type DType, isFloat } from '../../lib/tensor/dtype.js'
import { fromBytes, toBytes } from '../../lib/tensor/bytes.js'
import { type Shape, sizeOf } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import type { Arg, OpCase, Values } from './check.js'
import { noise } from './differences.js'

export type FloatType = 'float32' | 'bfloat16' | 'float64'

/** The nearest numbers of a dtype. */
export function roundTo(dtype: DType, numbers: ArrayLike<number>): Float64Array {
  const { target, values } = fromBytes(numbers.length, dtype)
  const bytes = toBytes(Array.from(numbers), dtype)
  new Uint8Array(target.buffer).set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  return Float64Array.from(values())
}

/** The numbers of an input; `batch` puts an axis before its shape. */
export function numbersOf(arg: Arg, seed: number, float: FloatType, batch: Shape = []): Values {
  const shape = [...batch, ...arg.shape]
  const own = sizeOf(arg.shape)
  const raw = noise(sizeOf(shape), seed).map((x, i) => arg.value(x, own === 0 ? 0 : i % own))
  return { shape, data: roundTo(arg.dtype === 'float' ? float : arg.dtype, raw) }
}

export const tensorOf = (arg: Arg, { shape, data }: Values, float: FloatType): Tensor =>
  tensor(Float64Array.from(data), { shape, dtype: arg.dtype === 'float' ? float : arg.dtype })

export const outputsOf = (c: OpCase, inputs: readonly Tensor[]): readonly Tensor[] => {
  const out = c.f(...inputs)
  return Array.isArray(out) ? (out as readonly Tensor[]) : [out as Tensor]
}

/** Whether a case's input is differentiated. */
export const isSmooth = (arg: Arg): boolean => !arg.constant && arg.dtype === 'float'

/** Both the same to within `bound` of the largest finite number (and of 1); infinities and NaN in the same places. */
export function expectNumbers(what: string, got: ArrayLike<number>, wanted: ArrayLike<number>, bound: number): void {
  expect(got.length, `${what}: how many`).toBe(wanted.length)
  let scale = 1
  for (let i = 0; i < wanted.length; i++)
    if (Math.abs(wanted[i]) < Infinity) scale = Math.max(scale, Math.abs(wanted[i]))
  for (let i = 0; i < wanted.length; i++) {
    const same = Object.is(got[i], wanted[i]) || Math.abs(got[i] - wanted[i]) <= bound * scale
    if (!same) expect.fail(`${what}: number ${i} is ${got[i]}, not ${wanted[i]} (within ${bound} of ${scale})`)
  }
}

/** The outputs in float64 against loops in JavaScript. */
export async function checkValues(
  c: OpCase,
  expectedOf: NonNullable<OpCase['expected']>,
  args: readonly Arg[],
): Promise<void> {
  const values = args.map((a, i) => numbersOf(a, i + 1, 'float64'))
  const outputs = outputsOf(
    c,
    args.map((a, i) => tensorOf(a, values[i], 'float64')),
  )
  const expected = expectedOf(...values)
  const wanted = (
    outputs.length === 1 &&
    !Array.isArray((expected as readonly unknown[])[0]) &&
    !ArrayBuffer.isView((expected as readonly unknown[])[0])
      ? [expected]
      : expected
  ) as readonly ArrayLike<number>[]
  expect(wanted.length, 'outputs').toBe(outputs.length)
  const got = await readAll(outputs)
  got.forEach((numbers, i) => {
    const bound = isFloat(outputs[i].dtype) ? (c.bounds?.float64 ?? 1e-12) : 0
    expectNumbers(`output ${i}`, numbers, wanted[i], bound)
  })
}
