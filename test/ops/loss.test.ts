import { describe, expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { cast, mul } from '../../lib/ops/elementwise.js'
import { crossEntropy, type CrossEntropyOptions, linearCrossEntropy } from '../../lib/ops/loss.js'
import { linear } from '../../lib/ops/matmul.js'
import { sum } from '../../lib/ops/reduce.js'
import { tensor } from '../../lib/ops/shape.js'
import type { DType } from '../../lib/tensor/dtype.js'
import type { Shape } from '../../lib/tensor/shape.js'
import { sizeOf } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad, valueAndGrad, vmap } from '../../lib/transform/index.js'
import { checkDerivatives, expectClose, random } from './differences.js'
import { cases as rowCases } from './cases/loss.js'
import { checkCases } from './check.js'

checkCases(rowCases)

/** Labels in [0, classes), every fourth of them −100. */
const labelsOf = (shape: Shape, classes: number, ignored = true): Tensor =>
  tensor(
    Int32Array.from({ length: sizeOf(shape) }, (_, i) => (ignored && i % 4 === 3 ? -100 : (7 * i + 3) % classes)),
    { shape },
  )

const options: CrossEntropyOptions[] = [
  {},
  { labelSmoothing: 0.2 },
  { softCap: 1.5 },
  { zLoss: 0.1, labelSmoothing: 0.1, softCap: 2 },
]

describe('crossEntropy', () => {
  test('gives the numbers of its formula', async () => {
    const x = [0.5, -1, 2]
    const lse = Math.log(x.reduce((s, v) => s + Math.exp(v), 0))
    const logits = tensor([x, x, x], { dtype: 'float64' })
    const labels = tensor([2, -100, 0], { dtype: 'int32' })
    const losses = await crossEntropy(logits, labels, { reduction: 'none' }).read()
    ;[lse - 2, 0, lse - 0.5].forEach((v, i) => expect(losses[i]).toBeCloseTo(v, 14))
    expect(await crossEntropy(logits, labels).item()).toBeCloseTo(lse - 1.25, 14)
    expect(await crossEntropy(logits, labels, { reduction: 'sum' }).item()).toBeCloseTo(2 * lse - 2.5, 14)
    const weights = tensor([3, 5, 1], { dtype: 'float64' })
    expect(await crossEntropy(logits, labels, { weights }).item()).toBeCloseTo((3 * (lse - 2) + lse - 0.5) / 4, 14)
    const smooth = await crossEntropy(logits, labels, { reduction: 'none', labelSmoothing: 0.3, zLoss: 0.5 }).read()
    expect(smooth[0]).toBeCloseTo(lse - 0.7 * 2 - 0.1 * 1.5 + 0.5 * lse * lse, 14)
    expect(await crossEntropy(logits, tensor([-100, -100, -100], { dtype: 'int32' })).item()).toBe(0)
  })

  describe.each(options)('%j', (o) => {
    test.each([[[5]], [[4, 7]], [[2, 3, 17]], [[0, 3]], [[3, 1]]] as [Shape][])(
      'derivatives and vmap at %j',
      async (shape) => {
        const labels = labelsOf(shape.slice(0, -1), shape[shape.length - 1])
        await checkDerivatives((x) => crossEntropy(x, labels, { ...o, reduction: 'none' }), [random(shape, 1)])
        await checkDerivatives((x) => crossEntropy(x, labels, o), [random(shape, 1)])
      },
    )
  })

  test('labels of every example under vmap', async () => {
    const [logits, labels] = [random([3, 4, 5], 1), labelsOf([3, 4], 5)]
    await expectClose(
      vmap((x: Tensor, y: Tensor) => crossEntropy(x, y, { reduction: 'none' }))(logits, labels),
      crossEntropy(logits, labels, { reduction: 'none' }),
      1e-14,
    )
  })

  test('a label out of range is an error, and says so', async () => {
    const y = crossEntropy(random([2, 3], 1), tensor([1, 3], { dtype: 'int32' }))
    await expect(y.read()).rejects.toThrow(/range/)
    const z = linearCrossEntropy(random([2, 3], 1), random([4, 3], 2), tensor([1, -1], { dtype: 'int32' }))
    await expect(z.read()).rejects.toThrow(/range/)
  })

  test('says what is wrong', () => {
    expect(() => crossEntropy(random([2, 3], 1), labelsOf([3], 3))).toThrow('labels must have the shape [2]')
    expect(() => crossEntropy(random([2, 3], 1), random([2], 1))).toThrow('labels must be int32')
    expect(() => crossEntropy(random([2, 3], 1), labelsOf([2], 3), { labelSmoothing: 2 })).toThrow(
      '`labelSmoothing` must be in [0, 1]',
    )
    expect(() => crossEntropy(random([2, 3], 1), labelsOf([2], 3), { ignore_index: 2 } as never)).toThrow(
      'Did you mean `ignoreIndex`',
    )
    expect(() => linearCrossEntropy(random([2, 3], 1), random([5, 4], 1), labelsOf([2], 3))).toThrow(
      'the weight must be float64 [classes, 3]',
    )
  })
})

describe('linearCrossEntropy', () => {
  describe.each(options)('%j', (o) => {
    test.each([
      [[3], 5],
      [[4, 3], 7],
      [[2, 3, 2], 17],
      [[0, 3], 4],
      [[3, 1], 1],
    ] as [Shape, number][])('derivatives and vmap at %j into %d', async (shape, classes) => {
      const labels = labelsOf(shape.slice(0, -1), classes)
      const width = shape[shape.length - 1]
      await checkDerivatives(
        (x, w) => linearCrossEntropy(x, w, labels, o),
        [random(shape, 1), random([classes, width], 2)],
      )
      await checkDerivatives(
        (x, w, bias) => linearCrossEntropy(x, w, labels, { ...o, bias, reduction: 'sum' }),
        [random(shape, 1), random([classes, width], 2), random([classes], 3)],
      )
    })
  })

  describe('over many tiles and chunks', () => {
    const [rows, width, classes] = [2500, 20, 5001]
    const labels = labelsOf([rows], classes)
    const o = { labelSmoothing: 0.1, softCap: 3, zLoss: 0.01 }
    const wide = (t: Tensor) => cast(t, 'float64')
    // Numbers that all dtypes have.
    const inputs = [[rows, width], [classes, width], [classes]].map((shape, i) =>
      cast(random(shape, i + 1), 'bfloat16'),
    )
    // Gradients of the sum: those of the mean would be too small to be seen beside 1.
    const summed = (f: (...t: Tensor[]) => Tensor) =>
      valueAndGrad((...t: Tensor[]) => mul(f(...t), rows), { argnums: [0, 1, 2] })
    const plain = summed((...t) => crossEntropy(linear(t[0], t[1], t[2]), labels, o))(...inputs.map(wide))

    test.each([
      ['float64', 1e-12],
      ['float32', 4e-6],
      ['bfloat16', 2 ** -7],
    ] as [DType, number][])('%s against float64 logits', async (dtype, bound) => {
      const fused = (...t: Tensor[]) => linearCrossEntropy(t[0], t[1], labels, { ...o, bias: t[2] })
      const [value, wanted] = plain as unknown as [Tensor, Tensor[]]
      // What bends is known only after the loss, so that its gradients are an op of their own; else there is one for both.
      const bent = summed((...t) => mul(fused(...t), mul(fused(...t), 0.1)))
      for (const [how, factor] of [
        [summed(fused), 1],
        [bent, 0.2],
      ] as const) {
        const [loss, got] = how(...inputs.map((t) => cast(t, dtype))) as unknown as [Tensor, Tensor[]]
        const slope = factor === 1 ? 1 : mul(value, factor / rows)
        await expectClose(wide(loss), factor === 1 ? value : mul(mul(value, value), 0.1 / rows), rows * bound)
        for (let i = 0; i < 3; i++) await expectClose(wide(got[i]), mul(wanted[i], slope), bound)
      }
    })
  })

  test('the gradient of one operand alone', async () => {
    const [x, w, labels] = [random([6, 4], 1), random([9, 4], 2), labelsOf([6], 9)]
    const loss = (a: Tensor, b: Tensor) => linearCrossEntropy(a, b, labels)
    const both = grad(loss, { argnums: [0, 1] })(x, w) as unknown as Tensor[]
    const [dx, dw, a, b] = await readAll([grad(loss)(x, w), grad((t: Tensor) => loss(x, t))(w), both[0], both[1]])
    expect(dx).toEqual(a)
    expect(dw).toEqual(b)
    expect(await sum(both[0]).item()).not.toBe(0)
  })
})
