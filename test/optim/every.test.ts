import { afterAll, describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import {
  add,
  cast,
  compile,
  concat,
  type DType,
  matmul,
  mean,
  mul,
  nn,
  optim,
  readAll,
  reshape,
  slice,
  square,
  sub,
  sum,
  tensor,
  type Tensor,
  valueAndGrad,
} from '../../lib/index.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals, worst } from './reference.js'
import { EVERY, OTHERS, type Tried } from './walk.js'

type Params = Record<string, Tensor>
type Loss = (p: Params) => Tensor
interface At {
  params: Params
  state: optim.OptimizerState
}

const threads = native().threads()
afterAll(() => void native().threads(threads))

const wide = (p: Params): Params =>
  Object.fromEntries(Object.entries(p).map(([k, t]) => [k, t.dtype === 'float64' ? t : cast(t, 'float32')]))

/** A program of one step on this loss. */
function stepOf(opt: optim.Optimizer, loss: Loss) {
  return compile(
    (params: Params, state: optim.OptimizerState, lr: Tensor, key: Tensor): At => {
      // The parameters are the scores, of which the loss is made; two tasks share it.
      const outputs = (p: Params) => {
        const w = wide(p)
        const names = Object.keys(w)
        const logits = concat(
          names.map((k) => reshape(w[k], [1, w[k].size])),
          { axis: 1 },
        )
        const back: Params = {}
        let from = 0
        for (const k of names) back[k] = reshape(slice(logits, [null, [from, (from += w[k].size)]]), w[k].shape)
        const whole = loss(back)
        return { loss: whole, logits, losses: { some: mul(whole, 0.3), rest: mul(whole, 0.7) } }
      }
      const { params: p, state: s } = opt.step
        ? opt.step(optim.objective(outputs, key), params, state, { lr, key })
        : opt.update(params, valueAndGrad((p: Params) => loss(wide(p)))(params)[1], state, { lr, key })
      return { params: p, state: s }
    },
    { donate: [0, 1] },
  )
}

/** Steps from one to another, the learning rate falling to 0 at the last of `steps`. */
function run(step: ReturnType<typeof stepOf>, from: At, rate: number, steps: number, first = 0, last = steps): At {
  let at = from
  for (let t = first; t < last; t++)
    at = step(
      at.params,
      at.state,
      tensor(rate * (1 - t / steps), { dtype: 'float64' }),
      tensor([3, 4 + t], { dtype: 'int32' }),
    )
  return at
}

const begin = (opt: optim.Optimizer, params: Params): At => ({ params, state: opt.init(params) })
const lossAt = (opt: optim.Optimizer, loss: Loss, { params, state }: At) =>
  loss(wide(opt.evalParams(params, state))).item()

const as = (dtype: DType, numbers: number[], shape: number[]) => tensor(Float64Array.from(numbers), { dtype, shape })

/** Problems with their start and by what factor the loss must fall. */
const problems: Record<string, { start(dtype: DType): Params; loss: Loss; steps: number; factor: number }> = {
  parabola: {
    start: (d) => ({
      weight: as(d, normals(1, 15), [3, 5]),
      bias: as(d, [0.5], []),
      row: as(d, normals(2, 4), [1, 4]),
    }),
    loss: (p) => {
      const target = as(p.weight.dtype, normals(3, 15), [3, 5])
      return add(add(mean(square(sub(p.weight, target))), square(p.bias)), mean(square(sub(p.row, 1))))
    },
    steps: 200,
    factor: 20,
  },
  'matrix parabola': {
    start: (d) => ({ weight: as(d, normals(4, 16), [4, 4]) }),
    loss: ({ weight }) => {
      const a = as(weight.dtype, [1, 0, 0, 0, 0, 0.8, 0.1, 0, 0, 0.1, 1.2, 0, 0.2, 0, 0, 0.7], [4, 4])
      return mul(sum(square(sub(matmul(matmul(a, weight), a), as(weight.dtype, normals(5, 16), [4, 4])))), 0.1)
    },
    steps: 200,
    factor: 5,
  },
  Rosenbrock: {
    start: (d) => ({ weight: as(d, [-1.2, 1], [2]) }),
    loss: ({ weight }) => {
      const [x, y] = [slice(weight, [[0, 1]]), slice(weight, [[1, 2]])]
      return sum(add(square(sub(1, x)), mul(square(sub(y, square(x))), 100)))
    },
    steps: 400,
    factor: 5,
  },
}

const copy = async (t: Tensor): Promise<Tensor> => tensor(await t.read(), { dtype: t.dtype, shape: t.shape })
async function copied({ params, state }: At): Promise<At> {
  const slots: Record<string, Params> = {}
  for (const [slot, by] of Object.entries(state.slots)) {
    slots[slot] = {}
    for (const [k, t] of Object.entries(by)) slots[slot][k] = await copy(t)
  }
  const read: Params = {}
  for (const [k, t] of Object.entries(params)) read[k] = await copy(t)
  return { params: read, state: { step: await copy(state.step), slots } }
}

const all = ({ params, state }: At): Tensor[] => [
  ...Object.values(params),
  ...Object.values(state.slots).flatMap((by) => Object.values(by)),
]
const avals = (at: At) => all(at).map((t) => `${t.dtype} [${t.shape.join(', ')}]`)

test('the walk has every optimizer, and nothing else', () => {
  const functions = Object.entries(optim)
    .filter(([name, x]) => typeof x === 'function' && !OTHERS.has(name))
    .map(([name]) => name)
  expect(Object.keys(EVERY).sort()).toEqual(functions.sort())
  for (const name of optim.OPTIMIZERS) expect(EVERY).toHaveProperty(name)
})

const alone = Object.entries(EVERY).filter(([, { needsData }]) => !needsData)
describe.each(alone)('%s', (_, tried: Tried) => {
  test.each(Object.entries(problems))('goes down a %s', async (name, { start, loss, steps, factor }) => {
    const rate = name === 'Rosenbrock' ? (tried.valley ?? tried.rate / 10) : tried.rate
    for (const dtype of ['float32', 'float64'] as const) {
      const opt = tried.make({}, name === 'Rosenbrock')
      const at = begin(opt, start(dtype))
      const before = await lossAt(opt, loss, at)
      const kinds = avals(at)
      const end = run(stepOf(opt, loss), at, rate, steps)
      expect(await lossAt(opt, loss, end)).toBeLessThan(before / factor)
      expect(avals(end)).toEqual(kinds)
    }
  })

  test('goes on from a copy of its state bit for bit, and gives the same bits for 1, 2 and 5 threads', async () => {
    const { start, loss } = problems['matrix parabola']
    const numbers: unknown[] = []
    for (const n of [1, 2, 5]) {
      native().threads(n)
      const opt = tried.make()
      const big = () => ({ ...start('float32'), other: as('float32', normals(9, 17_000), [170, 100]) })
      const step = stepOf(opt, (p) => add(loss(p), mean(square(p.other))))
      const whole = run(step, begin(opt, big()), tried.rate, 4)
      const half = await copied(run(step, begin(opt, big()), tried.rate, 4, 0, 2))
      const resumed = run(step, half, tried.rate, 4, 2)
      const read = await readAll(all(whole))
      expect(await readAll(all(resumed))).toEqual(read)
      numbers.push(read)
    }
    native().threads(threads)
    expect(numbers[1]).toEqual(numbers[0])
    expect(numbers[2]).toEqual(numbers[0])
  })

  test.each(['master', 'stochastic', 'nearest'] as const)('takes bfloat16 weights, %s', async (rounding) => {
    const { start, loss, steps } = problems.parabola
    const opt = tried.make({ rounding })
    const at = begin(opt, start('bfloat16'))
    const before = await lossAt(opt, loss, at)
    const kinds = avals(at)
    const end = run(stepOf(opt, loss), at, tried.rate, steps)
    expect(avals(end)).toEqual(kinds)
    expect(kinds.slice(0, 3).every((k) => k.startsWith('bfloat16'))).toBe(true)
    expect(await lossAt(opt, loss, end)).toBeLessThan(before / 5)
  })

  test('leaves frozen parameters alone and gives them no state; a group has its own rate', async () => {
    const { start, loss } = problems.parabola
    const opt = tried.make({
      groups: [{ match: /row/, frozen: true }, ...(tried.oneRate ? [] : [{ match: /bias/, lrScale: 0 }])],
    })
    const first = start('float32')
    const [row, bias, weight] = await readAll([first.row, first.bias, first.weight])
    const at = begin(opt, first)
    expect(opt.moved(first)).toEqual(expect.arrayContaining(['bias', 'weight']))
    expect(opt.moved(first)).not.toContain('row')
    for (const by of Object.values(at.state.slots)) expect(by).not.toHaveProperty('row')
    const end = run(stepOf(opt, loss), at, tried.rate, 4)
    const after = await readAll([end.params.row, end.params.bias, end.params.weight])
    expect(after[0]).toEqual(row)
    if (!tried.oneRate) expect(after[1]).toEqual(bias)
    expect(after[2]).not.toEqual(weight)
  })

  test('moves nothing but by decay where gradients are zero, and stays finite at huge and tiny ones', async () => {
    for (const scale of [0, 1e-20, 1e20]) {
      const opt = tried.make()
      const loss: Loss = (p) => sum(mul(p.weight, scale))
      const start = () => ({ weight: as('float64', normals(7, 6), [2, 3]), one: as('float64', [2], [1, 1]) })
      const both: Loss = (p) => add(loss(p), mul(sum(p.one), scale))
      const end = run(stepOf(opt, both), begin(opt, start()), 1e-3, 3)
      const numbers = await readAll(Object.values(end.params))
      expect(numbers.flatMap((x) => [...x]).every(Number.isFinite)).toBe(true)
      if (scale === 0) expect(worst(numbers[0], normals(7, 6))).toBeLessThan(0.01)
    }
  })
})

test('the iterate of Schedule-Free has memory of its own beside the float32 weight of a bfloat16 one', async () => {
  const { start, loss } = problems.parabola
  const end = async (dtype: DType) => {
    const opt = optim.scheduleFreeAdamw()
    const { state } = run(stepOf(opt, loss), begin(opt, start(dtype)), 0.1, 4)
    return state.slots.z.weight.read()
  }
  expect(worst(await end('bfloat16'), [...(await end('float32'))])).toBeLessThan(0.02)
})

describe.each(Object.entries(EVERY))('%s with a model', (_, tried: Tried) => {
  test('says the bytes of state that it allocates', () => {
    const params = { ...problems.parabola.start('float32'), half: as('bfloat16', normals(6, 30), [5, 6]) }
    const opt = tried.make()
    const bytes = { float32: 4, float64: 8, uint8: 1, bfloat16: 2, int32: 4 }
    const held = Object.fromEntries(
      Object.entries(opt.init(params).slots).map(([slot, by]) => [
        slot,
        Object.values(by).reduce((n, t) => n + t.size * bytes[t.dtype], 0),
      ]),
    )
    expect(opt.stateBytes(params)).toEqual(held)
  })

  class Line {
    weight = as('float64', normals(1, 12), [4, 3])
    bias = as('float64', [0, 0, 0], [3])
    loss({ x, y }: Record<string, Tensor>) {
      const logits = add(matmul(x, this.weight), this.bias)
      const loss = mean(square(sub(logits, y)))
      return { loss, logits, losses: { some: mul(loss, 0.3), rest: mul(loss, 0.7) } }
    }
  }
  const batch = (seed: number, rows: number, from = 0) => ({
    x: {
      shape: [rows, 4],
      dtype: 'float64' as const,
      data: Float64Array.from(normals(seed, 32)).slice(from * 4, (from + rows) * 4),
    },
    y: {
      shape: [rows, 3],
      dtype: 'float64' as const,
      data: Float64Array.from(normals(seed + 1, 24)).slice(from * 3, (from + rows) * 3),
    },
  })

  test.each([null, 0.05])('takes two micro-batches as the one that both are, on a schedule, clip %s', async (clip) => {
    const trained = async (parts: number) => {
      const opt = tried.make({ lr: (t) => tried.rate / (t + 1) })
      const model = new Line()
      const trainer = new Trainer(model as never, { optimizer: opt, clip, seed: 5 })
      await trainer.materialize()
      const rows = 8 / parts
      const losses: number[] = []
      for (let step = 1; step <= 5; step++) {
        const micro = Array.from({ length: parts }, (_, i) => batch(20, rows, i * rows))
        const wait = await trainer.step(micro, { lr: opt.lrAt(step), step })
        losses.push((await wait()).loss)
      }
      await trainer.publish()
      trainer.close()
      return { losses, weights: await readAll(Object.values(nn.parameters(model))) }
    }
    const [one, two] = [await trained(1), await trained(2)]
    expect(one.losses.at(-1)).toBeLessThan(one.losses[0])
    one.weights.forEach((w, i) => expect(worst(two.weights[i], w)).toBeLessThan(1e-6))
  })
})

/** Those that can keep states in eight bits. */
const eightBits = optim.OPTIMIZERS.filter((name) => {
  try {
    return optim.optimizerNamed(name, { states: '8bit' }) !== undefined
  } catch {
    return false
  }
})

/** What keeps no mean of a gradient or of its square as large as the parameter, which is all that eight bits are for. */
const NO_MOMENTS = ['adafactor', 'adagradNorm', 'armijo', 'blockCoordinate', 'lbfgs', 'normalizedGd']
test('every optimizer with moments keeps them in eight bits where asked', () => {
  expect([...eightBits, ...NO_MOMENTS].sort()).toEqual([...optim.OPTIMIZERS].sort())
})

describe.each(eightBits)('%s with states in eight bits', (name) => {
  const [rows, columns] = [96, 64]
  const size = rows * columns
  const target = normals(11, size)
  const loss: Loss = ({ weight }) => mean(square(sub(weight, as(weight.dtype, target, [rows, columns]))))
  const both: Loss = (p) => add(loss(p), mean(square(p.small)))
  const start = (dtype: DType = 'float32') => ({
    weight: as(dtype, normals(12, size), [rows, columns]),
    small: as(dtype, normals(13, 6), [2, 3]),
  })
  const tried = EVERY[name]
  const options = { states: '8bit' } as optim.RuleOptions
  const codesOf = (opt: optim.Optimizer) => {
    const { slots } = opt.init(start())
    return Object.keys(slots).filter((slot) => `${slot}Units` in slots)
  }
  // Of a mean over many numbers gradients are small, and the way is long for steps of a matrix.
  const rate = { sgd: 100, sgdp: 100, muon: 0.2, soap: 0.2 }[name] ?? tried.rate

  test('goes down a parabola of a size that they are for', async () => {
    const opt = tried.make(options)
    const at = begin(opt, { weight: start().weight })
    const [before, kinds] = [await lossAt(opt, loss, at), avals(at)]
    const end = run(stepOf(opt, loss), at, rate, 300)
    expect(await lossAt(opt, loss, end)).toBeLessThan(before / 4)
    expect(avals(end)).toEqual(kinds)
  })

  test('takes a byte and a 64th of a number for each, and 32 bits for small tensors', () => {
    const [opt, full] = [tried.make(options), tried.make()]
    const codes = codesOf(opt)
    const [bytes, wide] = [opt.stateBytes(start()), full.stateBytes(start())]
    if (Object.keys(wide).length === 0) return
    expect(codes.length).toBeGreaterThan(0)
    const { slots } = opt.init(start())
    for (const slot of codes) {
      expect([slots[slot].weight.dtype, slots[slot].small.dtype]).toEqual(['uint8', 'float32'])
      expect(wide[slot] - bytes[slot] - bytes[`${slot}Units`]).toBe(3 * size - size / 64)
    }
    expect(opt.in8bits).toBeUndefined()
    expect(full.in8bits?.().stateBytes(start())).toEqual(bytes)
    expect(full.in8bits?.().name).toBe(name)
  })

  test('goes on from a copy of its state bit for bit, with a clip, a schedule and groups, in both dtypes', async () => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const opt = tried.make({
        ...options,
        clip: { globalNorm: 0.01 },
        lr: (t) => rate / (t + 1),
        ...(tried.oneRate ? {} : { groups: [{ match: /small/, lrScale: 0.5 }] }),
      })
      const step = stepOf(opt, both)
      const whole = run(step, begin(opt, start(dtype)), rate, 4)
      const half = await copied(run(step, begin(opt, start(dtype)), rate, 4, 0, 2))
      const [resumed, wanted] = [await readAll(all(run(step, half, rate, 4, 2))), await readAll(all(whole))]
      const differ = resumed.flatMap((x, i) => [...x].filter((n, k) => !Object.is(n, wanted[i][k])))
      expect(differ).toHaveLength(0)
      const [weight] = await readAll([start(dtype).weight])
      expect(worst(wanted[0], [...weight])).toBeGreaterThan(0)
    }
  })

  class Wide {
    weight = as('float32', normals(1, size), [rows, columns])
    loss({ x, y }: Record<string, Tensor>) {
      const logits = matmul(x, this.weight)
      return { loss: mean(square(sub(logits, y))), logits }
    }
  }
  test('takes two micro-batches as the one that both are, and leaves frozen parameters alone', async () => {
    const part = (from: number, n: number) => ({
      x: {
        shape: [n, rows],
        dtype: 'float32' as const,
        data: Float32Array.from(normals(2, 8 * rows)).slice(from * rows, (from + n) * rows),
      },
      y: {
        shape: [n, columns],
        dtype: 'float32' as const,
        data: Float32Array.from(normals(3, 8 * columns)).slice(from * columns, (from + n) * columns),
      },
    })
    const trained = async (parts: ReturnType<typeof part>[]) => {
      const opt = tried.make({ ...options, lr: tried.rate })
      const model = new Wide()
      const trainer = new Trainer(model as never, { optimizer: opt, clip: 0.5, seed: 5 })
      await trainer.materialize()
      const losses: number[] = []
      for (let step = 1; step <= 3; step++)
        losses.push((await (await trainer.step(parts, { lr: tried.rate, step }))()).loss)
      await trainer.publish()
      trainer.close()
      return { losses, weights: await model.weight.read() }
    }
    const [one, two] = [await trained([part(0, 8)]), await trained([part(0, 4), part(4, 4)])]
    two.losses.forEach((x, i) => expect(x / one.losses[i]).toBeCloseTo(1, 2))
    const first = normals(1, size)
    const far = (a: ArrayLike<number>, b: ArrayLike<number>) => Math.hypot(...Array.from(a, (x, i) => x - b[i]))
    // Where a gradient has not full rank, rounding chooses SOAP's bases.
    if (name !== 'soap') expect(far(two.weights, one.weights)).toBeLessThan(0.05 * far(one.weights, first))
    const frozen = tried.make({ ...options, groups: [{ match: /small/, frozen: true }] })
    for (const by of Object.values(frozen.init(start()).slots)) expect(by).not.toHaveProperty('small')
  })
})

test('the seed and the step are what make noise another', async () => {
  const { start, loss } = problems.parabola
  const end = async (seed: number, steps = 0) => {
    const opt = optim.gradientNoise(optim.sgd({ lr: 0.1 }), { eta: 0.1, gamma: 0, seed })
    const p = start('float32')
    const state = { ...opt.init(p), step: tensor(steps, { dtype: 'int32' }) }
    const next = opt.update(p, valueAndGrad(loss)(p)[1], state)
    return next.params.weight.read()
  }
  expect(await end(1)).toEqual(await end(1))
  expect(await end(1)).not.toEqual(await end(2))
  expect(await end(1)).not.toEqual(await end(1, 1))
})
