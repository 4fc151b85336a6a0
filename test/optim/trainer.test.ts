import { describe, expect, test } from 'vitest'
import { add, type DType, matmul, mean, optim, square, sub, tensor, type Tensor } from '../../lib/index.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals } from './reference.js'

class Line {
  weight: Tensor
  bias: Tensor
  constructor(dtype: DType = 'float32') {
    this.weight = tensor(normals(1, 12), { dtype, shape: [4, 3] })
    this.bias = tensor([0, 0, 0], { dtype })
  }
  loss({ x, y }: Record<string, Tensor>) {
    const logits = add(matmul(x, this.weight), this.bias)
    return { loss: mean(square(sub(logits, y))), logits }
  }
}

const batch = (seed: number, dtype: DType = 'float32') => {
  const bits = (n: number[]) => (dtype === 'float64' ? Float64Array.from(n) : Float32Array.from(n))
  return {
    x: { shape: [8, 4], dtype, data: bits(normals(seed, 32)) },
    y: { shape: [8, 3], dtype, data: bits(normals(seed + 1, 24)) },
  }
}

async function losses(optimizer: optim.Optimizer, clip: number | null, steps = 20): Promise<number[]> {
  const trainer = new Trainer(new Line(), { optimizer, clip })
  await trainer.materialize()
  const out: number[] = []
  for (let step = 1; step <= steps; step++) {
    const wait = await trainer.step([batch(7)], { lr: optimizer.lrAt(step), step })
    out.push((await wait()).loss)
  }
  trainer.close()
  return out
}

describe('within a training step', () => {
  test.each(optim.OPTIMIZERS)('%s lowers the loss, clipped or not', async (name) => {
    for (const clip of [1, null]) {
      const loss = await losses(optim.optimizerNamed(name, { lr: 0.02 }), clip)
      expect(loss.at(-1)).toBeLessThan(loss[0])
    }
  })

  test('a schedule changes the rate of every step and makes no second program', async () => {
    const rates = [0, 0.1, 0.05]
    const optimizer = optim.sgd({ lr: (step) => rates[step] })
    const trainer = new Trainer(new Line(), { optimizer, clip: null })
    await trainer.materialize()
    const weights = async () => {
      const out = new Float32Array(12)
      trainer.buffer('p:weight').read(out)
      return out
    }
    const before = await weights()
    await (await trainer.step([batch(7)], { lr: optimizer.lrAt(1), step: 1 }))()
    expect(await weights()).toEqual(before)
    await (await trainer.step([batch(7)], { lr: optimizer.lrAt(2), step: 2 }))()
    expect(await weights()).not.toEqual(before)
    trainer.close()
  })
})
