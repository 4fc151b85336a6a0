import { describe, expect, test } from 'vitest'
import { adaptiveAvgPool, avgPool, grad, maxPool, nn, random, sum, tensor, type Tensor } from '../../lib/index.js'
import { type Attrs, opNamed } from '../../lib/ops/define.js'
import { makeNode } from '../../lib/tensor/tensor.js'
import { cases } from './cases/pooling.js'
import { checkCases } from './check.js'
import { expectClose, random as noise } from './differences.js'

checkCases(cases)

describe('pooling', () => {
  const x = tensor(
    Float64Array.from({ length: 16 }, (_, i) => (i * 7) % 16),
    { shape: [1, 1, 4, 4] },
  )

  test('takes the largest or the mean of windows', async () => {
    expect([...(await maxPool(x, { size: 2 }).read())]).toEqual([12, 14, 15, 13])
    expect([...(await avgPool(x, { size: 2 }).read())]).toEqual([5.5, 7.5, 9.5, 7.5])
  })

  test.each(['float32', 'bfloat16', 'float64'] as const)(
    'the gradient goes to the first of equals, in %s',
    async (dtype) => {
      const flat = tensor([1, 2, 2, 2, 2, 1, 1, 2, 2], { shape: [1, 1, 3, 3], dtype })
      const g = await grad((t: Tensor) => sum(maxPool(t, { size: 2, stride: 1 })))(flat).read()
      expect([...g]).toEqual([0, 2, 0, 1, 1, 0, 0, 0, 0])
    },
  )

  test.each(['float32', 'bfloat16', 'float64'] as const)('NaN is the largest, −∞ is a number, in %s', async (dtype) => {
    const low = Number.NEGATIVE_INFINITY
    const odd = tensor([low, low, 3, low, low, Number.NaN, 1, Number.NaN], { shape: [1, 1, 2, 4], dtype })
    const f = (t: Tensor) => maxPool(t, { size: 2, padding: 1, stride: 2 })
    const y = await f(odd).read()
    expect([...y]).toEqual([low, 3, low, low, Number.NaN, Number.NaN])
    expect([...(await grad((t: Tensor) => sum(f(t)))(odd).read())]).toEqual([1, 0, 1, 1, 1, 1, 0, 1])
    expect([...(await avgPool(odd, { size: 2 }).read())]).toEqual([Number.NaN, Number.NaN])
  })

  test.each([
    { size: [2, 3], stride: [2, 1], padding: [1, 0, 1, 1], counts: [3, 7], dilation: [1, 1] },
    { size: [3, 2], stride: [2, 2], padding: [0, 0, 0, 0], counts: [3, 4], dilation: [1, 1] },
    { size: [2, 2], stride: [1, 3], padding: [0, 0, 1, 0], counts: [4, 3], dilation: [2, 2] },
  ])('rows are what their definitions say: %o', async ({ dilation, ...geometry }) => {
    const input = noise([2, 3, 6, 7], 1)
    const dy = noise([2, 3, ...geometry.counts], 2)
    const both = (name: string, inputs: Tensor[], attrs: Attrs): [Tensor, Tensor][] => {
      const op = opNamed(name)
      const defined = op.define!(inputs, attrs)
      return makeNode(op, inputs, attrs).map((t, i) => [t, defined[i]])
    }
    const largest = both('maxPool', [input], { ...geometry, dilation })
    const pairs = [...largest, ...both('maxPoolBackward', [dy, largest[0][0].node.outputs[1]], { size: [6, 7] })]
    if (dilation[0] === 1)
      for (const includePad of [true, false]) {
        pairs.push(...both('avgPool', [input], { ...geometry, includePad }))
        pairs.push(...both('avgPoolBackward', [dy], { ...geometry, includePad, counts: [6, 7] }))
      }
    for (const [kernel, definition] of pairs) await expectClose(kernel, definition, 1e-13)
  })

  test('wrong shapes and options are one sentence', () => {
    expect(() => maxPool(x, { size: 2, padding: 2 })).toThrow(/at most half of the window/)
    expect(() => avgPool(x, { size: 3, padding: [0, 2] })).toThrow(/at most half of the window/)
    expect(() => maxPool(x, { size: 5 })).toThrow(/window must fit/)
    expect(() => maxPool(noise([1, 1, 0, 4], 1), { size: 1 })).toThrow(/window must fit/)
    expect(() => maxPool(noise([1, 1, 1], 1), { size: 2, dilation: 4, padding: 2 })).toThrow(/must see an element/)
    expect(() => maxPool(noise([3, 4], 1), { size: 2 })).toThrow(/\[N, C, L\] or \[N, C, H, W\]/)
    expect(() => avgPool(x, { size: 2, dilation: 2 } as never)).toThrow(/dilation/)
    expect(() => adaptiveAvgPool(x, { size: 0 })).toThrow(/`size` must be/)
    expect(() => adaptiveAvgPool(noise([1, 1, 0], 1))).toThrow(/places to average/)
  })

  test('layers', () => {
    const image = random.normal(random.key(0), [2, 3, 9, 8])
    const line = random.normal(random.key(0), [2, 3, 9])
    expect(new nn.MaxPool2d(3, { stride: 2, padding: 1 }).forward(image).shape).toEqual([2, 3, 5, 4])
    expect(new nn.AvgPool2d([2, 4]).forward(image).shape).toEqual([2, 3, 4, 2])
    expect(new nn.MaxPool1d(2, { ceilMode: true }).forward(line).shape).toEqual([2, 3, 5])
    expect(new nn.AvgPool1d(3).forward(line).shape).toEqual([2, 3, 3])
    expect(new nn.AdaptiveAvgPool().forward(image).shape).toEqual([2, 3, 1, 1])
    expect(new nn.AdaptiveAvgPool(5).forward(line).shape).toEqual([2, 3, 5])
    expect(() => new nn.MaxPool2d(2).forward(line)).toThrow(/\[MaxPool2d\] x must be \[N, C, H, W\]/)
    expect(() => new nn.MaxPool2d(2, { countIncludePad: true } as never)).toThrow(/countIncludePad/)
  })
})
