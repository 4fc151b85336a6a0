// One optimizer's step by steepest, as a built-in or written in tensors; see bench/harness.mjs for what it reads and writes.
// Arguments: shapes, threads, name, options, `built-in` or `written`.
import { createInterface } from 'node:readline'
import { native } from '../../dist/addon.js'
import { compile, optim, readAll, tensor } from '../../dist/index.js'
import { add, div, mul, pow, sign, sqrt, square, sub } from '../../dist/ops/elementwise.js'

const shapes = JSON.parse(process.argv[2])
const [threads, name, options, how] = [
  Number(process.argv[3]),
  process.argv[4],
  JSON.parse(process.argv[5]),
  process.argv[6],
]
native().threads(threads)

/** The same formulas as a user would write them. */
const written = {
  adamw: optim.defineOptimizer({
    name: 'ownAdamw',
    hyper: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01 },
    slots: { m: 0, v: 0 },
    prepare: ({ lr, t, hyper: { beta1, beta2, weightDecay } }) => ({
      size: div(lr, sub(1, pow(beta1, t))),
      root: div(1, sqrt(sub(1, pow(beta2, t)))),
      shrink: sub(1, mul(lr, weightDecay)),
    }),
    step: ({ p, g, slots: { m, v }, c, hyper: { beta1, beta2, eps } }) => {
      const m1 = add(mul(m, beta1), mul(g, 1 - beta1))
      const v1 = add(mul(v, beta2), mul(square(g), 1 - beta2))
      return { p: sub(mul(p, c.shrink), div(mul(m1, c.size), add(mul(sqrt(v1), c.root), eps))), m: m1, v: v1 }
    },
  }),
  lion: optim.defineOptimizer({
    name: 'ownLion',
    slots: { m: 0 },
    step: ({ p, g, slots: { m }, lr }) => ({
      p: sub(p, mul(sign(add(mul(m, 0.9), mul(g, 0.1))), lr)),
      m: add(mul(m, 0.99), mul(g, 0.01)),
    }),
  }),
}
const optimizer = how === 'written' ? written[name]({ lr: 1e-4 }) : optim.optimizerNamed(name, { lr: 1e-4, ...options })
// A page of random numbers over and over: making a hundred million takes longer than the bench.
const page = Float32Array.from({ length: 4099 }, () => Math.random() - 0.5)
const make = () =>
  shapes.map((shape) => {
    const numbers = new Float32Array(shape.reduce((a, b) => a * b, 1))
    for (let i = 0; i < numbers.length; i += page.length) numbers.set(page.subarray(0, numbers.length - i), i)
    return tensor(numbers, { shape })
  })
const grads = make()
let params = make()
let state = optimizer.init(params)
const step = compile((p, s, g) => optimizer.update(p, g, s), { donate: [0, 1] })

console.log(`ready steepest, ${native().info().level}`)
for await (const line of createInterface({ input: process.stdin })) {
  const began = performance.now()
  for (let i = 0; i < Number(line); i++) ({ params, state } = step(params, state, grads))
  await readAll([state.step])
  console.log((performance.now() - began) / 1000)
}
