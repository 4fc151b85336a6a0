import { expect, test } from 'vitest'
import { argmax, slice, tensor } from '../../lib/index.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { Context } from '../../lib/nn/module.js'
import { Sampler } from '../../lib/train/gpt/sampler.js'

const take = async (sampler: Sampler, prompt: number[], n: number, options: object) => {
  const out: number[] = []
  for await (const token of sampler.generate(prompt, options)) {
    out.push(token)
    if (out.length === n) break
  }
  return out
}

test.each(['float32', 'float64'] as const)(
  'token by token, a GPT-2 says what it says of the whole row, %s',
  async (dtype) => {
    const context = 24
    const model = new GPT2({ vocabSize: 50, context, layers: 2, heads: 2, width: 16, seed: 5, dtype })
    const sampler = new Sampler(model)
    const prompt = [3, 1, 4]
    const out = await take(sampler, prompt, 18, { temperature: 0 })
    const row = [...prompt]
    for (const token of out) {
      const logits = model.logits(tensor(Int32Array.from(row), { shape: [1, row.length] }), new Context())
      const last = slice(logits, [null, [row.length - 1, row.length], null])
      expect(token).toBe(Number((await argmax(last, { axis: -1 }).read())[0]))
      row.push(token)
    }
    sampler.close()
  },
)

test('goes on beyond the context, and the seed decides', async () => {
  const model = new GPT2({ vocabSize: 50, context: 16, layers: 1, heads: 2, width: 16, seed: 5 })
  const sampler = new Sampler(model)
  const a = await take(sampler, [1], 50, { seed: 1 })
  expect(a).toHaveLength(50)
  expect(await take(sampler, [1], 50, { seed: 1 })).toEqual(a)
  expect(await take(sampler, [1], 50, { seed: 2 })).not.toEqual(a)
  await expect(take(sampler, [], 1, {})).rejects.toThrow(/at least one token/)
  sampler.close()
})
