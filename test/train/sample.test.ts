import { describe, expect, test } from 'vitest'
import { cast, mul } from '../../lib/ops/elementwise.js'
import { random } from '../../lib/ops/random.js'
import { ones, tensor } from '../../lib/ops/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { compile } from '../../lib/transform/index.js'
import { type SampleOptions, sampleLogits } from '../../lib/train/sample.js'
import { expectSameBits } from '../ops/threads.js'

const LOGITS = [1.2, -0.3, 2.1, Number.NEGATIVE_INFINITY, 0.4, 2.1, -1.5, 0.9]
const N = 40000
const key = random.key(11)

/** The distribution, by its definition, in float64. */
function exact({ temperature = 1, topK = LOGITS.length, topP = 1, minP = 0 }: SampleOptions): number[] {
  const order = LOGITS.map((_, i) => i).sort((a, b) => LOGITS[b] - LOGITS[a] || a - b)
  const share = (kept: readonly number[]) => {
    const weights = kept.map((i) => Math.exp((LOGITS[i] - 2.1) / temperature))
    const total = weights.reduce((s, w) => s + w, 0)
    return weights.map((w) => w / total)
  }
  const few = order.slice(0, topK)
  let before = 0
  const kept = few.filter((_, at) => {
    const keep = before < topP && Math.exp((LOGITS[few[at]] - 2.1) / temperature) >= minP
    before += share(few)[at]
    return keep
  })
  const p = new Array<number>(LOGITS.length).fill(0)
  share(kept).forEach((v, at) => {
    p[kept[at]] = v
  })
  return p
}

async function expectDistribution(options: SampleOptions): Promise<void> {
  const drawn = await sampleLogits(mul(ones([N, LOGITS.length]), tensor(LOGITS)), { ...options, key }).read()
  const counts = new Array<number>(LOGITS.length).fill(0)
  for (const i of drawn) counts[i]++
  const p = exact(options)
  let chi = 0
  let freedom = -1
  p.forEach((v, i) => {
    if (v === 0) {
      expect(counts[i]).toBe(0)
      return
    }
    freedom++
    chi += (counts[i] - v * N) ** 2 / (v * N)
  })
  if (freedom > 0) expect((chi - freedom) / Math.sqrt(2 * freedom)).toBeLessThan(4)
}

describe('sampleLogits', () => {
  test.each([
    {},
    { temperature: 0.5 },
    { temperature: 2 },
    { topK: 1 },
    { minP: 0.3 },
    { minP: 0.3, temperature: 2, topK: 5, topP: 0.9 },
    { topK: 3 },
    { topK: 100 },
    { topP: 0.5 },
    { topP: 0.9 },
    { topP: 1e-9 },
    { temperature: 1.7, topK: 5, topP: 0.8 },
    { temperature: 0.3, topK: 2, topP: 0.999 },
  ] as SampleOptions[])('draws exactly what %j says', expectDistribution)

  test('temperature 0 takes the first of the likeliest, without a key', async () => {
    const rows = tensor([LOGITS, [...LOGITS].reverse()])
    expect([...(await sampleLogits(rows, { temperature: 0 }).read())]).toEqual([2, 2])
    expect([...(await sampleLogits(cast(rows, 'bfloat16'), { temperature: 0, topK: 3 }).read())]).toEqual([2, 2])
    expect(sampleLogits(tensor(LOGITS), { key }).shape).toEqual([])
  })

  test('runs compiled, with the key as an input', async () => {
    const choose = compile((logits: Tensor, k: Tensor) => sampleLogits(logits, { topK: 4, topP: 0.9, key: k }))
    const logits = mul(ones([50, 1]), tensor(LOGITS))
    const [a, b] = [await choose(logits, key).read(), await sampleLogits(logits, { topK: 4, topP: 0.9, key }).read()]
    expect(a).toEqual(b)
    expect(await choose(logits, random.key(12)).read()).not.toEqual(b)
  })

  test('the bits do not depend on the number of threads', async () => {
    const logits = random.normal(key, [20, 1000])
    const x = tensor(await logits.read(), { shape: [20, 1000] })
    await expectSameBits(() => [
      sampleLogits(x, { key }),
      sampleLogits(x, { key, topK: 50 }),
      sampleLogits(x, { key, topP: 0.7 }),
    ])
  })

  test('refuses what makes no sense', async () => {
    expect(() => sampleLogits(tensor(LOGITS), {})).toThrow('[sampleLogits] a choice by chance needs a key')
    expect(() => sampleLogits(tensor(LOGITS), { key, temperature: -1 })).toThrow(
      '`temperature` must be 0 or more; got -1',
    )
    expect(() => sampleLogits(tensor(LOGITS), { key, topK: 0 })).toThrow(
      '`topK` must be a whole number of 1 or more; got 0',
    )
    expect(() => sampleLogits(tensor(LOGITS), { key, topP: 0 })).toThrow('`topP` must be in (0, 1]; got 0')
    expect(() => sampleLogits(tensor(LOGITS), { key, topp: 0.5 } as object)).toThrow('Did you mean `topP`?')
    expect(() => sampleLogits(tensor([1], { dtype: 'int32' }), { key })).toThrow('logits must be float')
    await expect(sampleLogits(tensor([Number.NaN, Number.NaN]), { key }).read()).rejects.toThrow(
      'a number is not finite',
    )
  })
})
