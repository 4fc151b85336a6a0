import { expect } from 'vitest'
import { nn } from '../../lib/index.js'
import { Context, parameters } from '../../lib/nn/module.js'
import { type Tensor, tensor } from '../../lib/ops/index.js'
import { random } from '../../lib/ops/random.js'
import type { Trainable } from '../../lib/train/trainer.js'
import { compile, grad, valueAndGrad } from '../../lib/transform/index.js'

/** What tensors hold, by name. */
export const numbers = async (named: Record<string, Tensor>) =>
  Object.fromEntries(
    await Promise.all(Object.entries(named).map(async ([k, t]) => [k, [...(await t.read())]] as const)),
  )

/** Gradients of a model by the names of its parameters, outside of a training loop. */
export async function gradients<B>(model: Trainable, batch: B, key = random.key(9)) {
  const params = parameters(model)
  const loss = (p: Record<string, Tensor>) =>
    nn.withTensors(model, p).loss(batch as never, new Context({ training: true, key })).loss
  const [value, grads] = valueAndGrad(loss)(params)
  return { loss: await value.item(), grads: await numbers(grads) }
}

/** The mean of many sampled gradients is the exact one, within five standard errors. */
export async function expectMean<B>(
  model: Trainable,
  net: Trainable,
  names: readonly string[],
  batch: B,
  context: { ids?: Tensor } = {},
  times = 2000,
): Promise<void> {
  const exact = (await gradients(net, batch)).grads
  const params = parameters(model)
  const one = compile((p: Record<string, Tensor>, key: Tensor) => {
    const loss = (q: Record<string, Tensor>) =>
      nn.withTensors(model, q).loss(batch as never, new Context({ training: true, key, ...context })).loss
    const grads = grad(loss)(p)
    return names.map((k) => grads[k])
  })
  const sums = names.map((k) => exact[k].map(() => [0, 0]))
  for (let i = 0; i < times; i++) {
    const list = await Promise.all(one(params, tensor([i, 77], { dtype: 'int32' })).map((t) => t.read()))
    list.forEach((g, n) =>
      g.forEach((v, e) => {
        sums[n][e][0] += v
        sums[n][e][1] += v * v
      }),
    )
  }
  let spread = 0
  names.forEach((k, n) =>
    sums[n].forEach(([s, s2], e) => {
      const center = s / times
      const deviation = Math.sqrt(Math.max(0, s2 / times - center ** 2) / times)
      spread = Math.max(spread, deviation)
      expect(Math.abs(center - exact[k][e])).toBeLessThan(5 * deviation + 1e-13)
    }),
  )
  expect(spread).toBeGreaterThan(0)
}
