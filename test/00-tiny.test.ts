import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { compile, grad, matmul, mean, square, sub, tensor, type Tensor } from '../lib/index.js'
import { loadModel } from '../lib/models/hf.js'
import { adamw } from '../lib/optim/index.js'
import { GPT2 } from '../lib/models/gpt2.js'
import { Sampler } from '../lib/train/generate/sampler.js'
import { train } from '../lib/train/train.js'

// The whole stack alive in two seconds: ops, gradients, a compiled function, a trained model, its checkpoint, and what it writes.

test('a gradient', async () => {
  const x = tensor([
    [1, 2],
    [3, 4],
  ])
  const loss = (w: Tensor) => mean(square(sub(matmul(x, w), 1)))
  const w = tensor([[0.5], [0.25]])
  expect([...(await grad(loss)(w).read())]).toEqual([4.5, 6])
  expect(await compile(loss)(w).item()).toBe(1.125)
})

test('a GPT learns a sequence, is saved, loaded and writes it', async () => {
  const out = mkdtempSync(join(tmpdir(), 'steepest-tiny-'))
  try {
    const context = 16
    const model = new GPT2({ vocabSize: 8, context, layers: 1, heads: 2, width: 32, seed: 3 })
    const rows = (from: number) =>
      Int32Array.from({ length: 4 * context }, (_, i) => (3 * (Math.floor(i / context) + (i % context) + from)) % 8)
    const batch = { inputIds: { data: rows(0), shape: [4, context] }, targets: { data: rows(1), shape: [4, context] } }
    const config = { model_type: 'gpt2', vocab_size: 8, n_positions: context, n_layer: 1, n_head: 2, n_embd: 32 }
    const result = await train(model, Array.from({ length: 120 }, () => batch) as never, {
      optimizer: adamw({ lr: 1e-2 }),
      steps: 120,
      out,
      config,
    })
    expect(result).toMatchObject({ reason: 'done', step: 120 })
    expect(result.loss).toBeLessThan(0.1)
    const sampler = new Sampler(await loadModel(result.path!))
    const written: number[] = []
    for await (const [token] of sampler.generate([[0, 3, 6]], { temperature: 0 })) {
      written.push(token)
      if (written.length === 8) break
    }
    sampler.close()
    expect(written).toEqual([1, 4, 7, 2, 5, 0, 3, 6])
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
})
