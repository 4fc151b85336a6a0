import { describe, expect, test } from 'vitest'
import {
  conv2d,
  grad,
  matmul,
  nn,
  optim,
  pad,
  random,
  solve,
  square,
  stack,
  type Tensor,
  tensor,
  train,
} from '../../lib/index.js'

const draw = (i: number, shape: number[]): Tensor => random.normal(random.key(i), shape, { dtype: 'float64' })
const read = async (t: Tensor) => Array.from(await t.read(), Number)
const close = async (a: Tensor, b: Tensor, digits = 9) => {
  const [got, wanted] = [await read(a), await read(b)]
  expect(got).toHaveLength(wanted.length)
  const size = Math.max(...wanted.map(Math.abs))
  got.forEach((v, i) => expect(v / size).toBeCloseTo(wanted[i] / size, digits))
}
const sgd = optim.sgd({ lr: 1 })

/** What one step of rate 1 moves parameters by. */
function moved<P extends Record<string, Tensor>>(
  loss: (p: P) => Tensor,
  params: P,
  options: optim.TractOptions = {},
  base = sgd,
) {
  const optimizer = optim.tract(base, options)
  const next = optimizer.step!(optim.objective(loss), params, optimizer.init(params)).params
  return Object.fromEntries(Object.entries(params).map(([k, p]) => [k, p.sub(next[k])])) as P
}

/** G (xᵀx / rows + λ)⁻¹ by its formula. */
function formula(g: Tensor, x: Tensor, lambda: number): Tensor {
  const [rows, n] = x.shape
  const eye = tensor(
    Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? lambda : 0)),
    { shape: [n, n] },
  )
  return solve(matmul(x.transpose(), x).div(rows).add(eye), g.transpose()).transpose()
}

describe('optim.tract', () => {
  const x = draw(0, [30, 8])
  const params = { first: draw(1, [5, 8]), bias: draw(2, [5]), second: draw(3, [3, 5]) }
  const y = draw(4, [30, 3])
  type P = typeof params
  const loss = (p: P): Tensor => {
    const h = matmul(x, p.first.transpose()).add(p.bias).tanh()
    return square(matmul(h, p.second.transpose()).sub(y)).mean()
  }
  const plain = grad(loss)(params)

  test('replaces the gradient of the layer that sees the data, and no other', async () => {
    const step = moved(loss, params)
    await close(step.first, formula(plain.first, x, 0.1))
    await close(step.second, plain.second)
    await close(step.bias, plain.bias)
  })

  test('with a large λ, times λ, it is the gradient', async () => {
    await close(moved(loss, params, { lambda: 1e6 }).first.mul(1e6), plain.first, 4)
  })

  test('with fewer rows than features, and for weights [in, out]', async () => {
    const few = x.slice([[0, 4]])
    const p = { w: draw(5, [8, 6]) }
    const own = (at: typeof p) => square(matmul(few, at.w)).sum()
    await close(moved(own, p, { lambda: 0.03 }).w, formula(grad(own)(p).w.transpose(), few, 0.03).transpose())
  })

  test.each([
    [{ stride: 1, padding: 1, dilation: 1, groups: 1 }],
    [{ stride: 2, padding: 2, dilation: 2, groups: 1 }],
    [{ stride: 1, padding: 0, dilation: 1, groups: 2 }],
    [{ stride: 2, padding: 1, dilation: 2, groups: 2 }],
    [{ stride: 3, padding: 0, dilation: 1, groups: 4 }],
  ])('of a convolution with %j', async (how) => {
    const { stride, padding, dilation, groups } = how
    const images = draw(6, [3, 4, 9, 8])
    const p = { w: draw(7, [8, 4 / groups, 3, 3]) }
    const own = (at: typeof p) => square(conv2d(images, at.w, how)).sum()
    const g = grad(own)(p).w
    const got = moved(own, p).w
    // The patches of each group, cut out by hand.
    const around = pad(images, [
      [0, 0],
      [0, 0],
      [padding, padding],
      [padding, padding],
    ])
    const [, , height, width] = conv2d(images, p.w, how).shape
    const [depth, outputs] = [4 / groups, 8 / groups]
    for (let group = 0; group < groups; group++) {
      const taps: Tensor[] = []
      for (let i = 0; i < 3; i++) {
        for (let j = 0; j < 3; j++) {
          const along = (at: number, count: number): [number, number, number] => [
            at * dilation,
            at * dilation + stride * (count - 1) + 1,
            stride,
          ]
          taps.push(around.slice([null, [group * depth, (group + 1) * depth], along(i, height), along(j, width)]))
        }
      }
      const patches = stack(taps, { axis: 2 })
        .transpose([0, 3, 4, 1, 2])
        .reshape([3 * height * width, depth * 9])
      const part = (t: Tensor) => t.slice([[group * outputs, (group + 1) * outputs]]).reshape([outputs, depth * 9])
      await close(part(got), formula(part(g), patches, 0.1))
    }
  })

  test('takes the layers that are named, and says where there are none', async () => {
    const h = matmul(x, params.first.transpose()).add(params.bias).tanh()
    const step = moved(loss, params, { layers: ['second'] })
    await close(step.second, formula(plain.second, h, 0.1))
    await close(step.first, plain.first)
    expect(() => moved(loss, params, { layers: /third/ })).toThrow('no weight in `layers`')
    const tied = (p: { w: Tensor }) => matmul(x, p.w).sum().add(p.w.sum())
    expect(() => moved(tied, { w: draw(8, [8, 2]) })).toThrow('no weight meets the data')
    expect(() => optim.tract(sgd, { lambda: 0 })).toThrow('`lambda` must be above 0')
    expect(() => optim.tract(sgd).update(params, plain, sgd.init(params))).toThrow('it needs the objective')
  })

  test('around and within SAM, the gradient of the perturbed weights is changed', async () => {
    const rho = 0.1
    const norm = Math.hypot(...(await Promise.all(Object.values(plain).map(read))).flat())
    const away = Object.fromEntries(
      Object.entries(params).map(([k, p]) => [k, p.add(plain[k as keyof P].mul(rho / norm))]),
    ) as P
    const step = moved(loss, params, {}, optim.sam(sgd, { rho }))
    const other = optim.sam(optim.tract(sgd), { rho })
    const next = other.step!(optim.objective(loss), params, other.init(params)).params
    const wanted = formula(grad(loss)(away).first, x, 0.1)
    await close(params.first.sub(next.first), wanted)
    expect(Math.max(...(await read(step.first.sub(plain.first))).map(Math.abs))).toBeGreaterThan(1e-3)
  })

  class Net extends nn.Module {
    first = new nn.Conv2d(2, 4, 3, { padding: 1, dtype: 'float64', key: random.key(1) })
    head = new nn.Linear(4 * 25, 3, { dtype: 'float64', key: random.key(2) })
    loss({ images, targets }: { images: Tensor; targets: Tensor }) {
      const h = this.first.forward(images).tanh()
      return { loss: square(this.head.forward(h.reshape([h.shape[0], 100])).sub(targets)).mean() }
    }
  }

  test('micro-batches solve once: they give the weights of the whole batch', async () => {
    const [images, targets] = [
      Float64Array.from(await read(draw(9, [12, 2, 5, 5]))),
      Float64Array.from(await read(draw(10, [12, 3]))),
    ]
    const rows = (from: number, to: number) => ({
      images: { data: images.slice(from * 50, to * 50), shape: [to - from, 2, 5, 5] },
      targets: { data: targets.slice(from * 3, to * 3), shape: [to - from, 3] },
    })
    const trained = async (parts: number, optimizer: optim.Optimizer) => {
      const model = new Net()
      const size = 12 / parts
      const batches = Array.from({ length: 2 * parts }, (_, i) => rows((i % parts) * size, ((i % parts) + 1) * size))
      await train(model, batches as never, { optimizer, steps: 2, accumulate: parts, clip: null })
      return model.first.weight
    }
    const tract = optim.tract(optim.sgd({ lr: 0.1, momentum: 0.9 }))
    const whole = await trained(1, tract)
    for (const parts of [2, 3, 6]) await close(await trained(parts, tract), whole)
    const without = await read((await trained(1, optim.sgd({ lr: 0.1, momentum: 0.9 }))).sub(whole))
    expect(Math.max(...without.map(Math.abs))).toBeGreaterThan(1e-3)
  })
})
