import { afterAll, describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import {
  compile,
  dequantizeBlockwise,
  type DType,
  optim,
  quantizeBlockwise,
  readAll,
  tensor,
  type Tensor,
} from '../../lib/index.js'
import { RULES } from '../../lib/ops/rules.gen.js'
import { RULE_OPTIMIZERS } from '../../lib/optim/rules.gen.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals, worst } from './reference.js'

const threads = native().threads()
afterAll(() => void native().threads(threads))

type Params = Record<string, Tensor>
interface At {
  params: Params
  state: optim.OptimizerState
}
/** Every rule, by an option that leads to it. */
const CASES: [string, (more: object) => optim.Optimizer, string[]][] = RULES.filter((r) => r.slots.length > 0)
  .filter((r) => (r.variant?.of ?? r.name) in RULE_OPTIMIZERS)
  .map((rule) => {
    const { variant } = rule
    const on = variant && {
      [variant.when]: variant.equals ?? (rule.hypers.some((h) => h.name === variant.when) ? 0.9 : true),
    }
    const name = variant?.of ?? rule.name
    return [rule.name, (more) => optim.optimizerNamed(name, { ...on, ...more }), rule.slots.map((s) => s.name)]
  })

const SHAPES = { large: [70, 80], small: [40] }
const params = (dtype: DType = 'float32'): Params =>
  Object.fromEntries(
    Object.entries(SHAPES).map(([k, shape], i) => [
      k,
      tensor(
        Float64Array.from(
          normals(
            i,
            shape.reduce((a, b) => a * b),
          ),
        ),
        { dtype, shape },
      ),
    ]),
  )
/** The gradient of half the square, and a little of something else. */
const gradsAt = (t: number, dtype: DType = 'float32'): Params =>
  Object.fromEntries(
    Object.entries(SHAPES).map(([k, shape], i) => {
      const size = shape.reduce((a, b) => a * b)
      const noise = normals(100 * t + i, size)
      return [
        k,
        tensor(
          Float64Array.from(normals(i, size), (x, n) => x + 0.1 * noise[n]),
          { dtype, shape },
        ),
      ]
    }),
  )
const stepOf = (opt: optim.Optimizer) =>
  compile((p: Params, s: optim.OptimizerState, g: Params): At => opt.update(p, g, s))

function run(opt: optim.Optimizer, from: At, first: number, last: number, dtype?: DType): At {
  const step = stepOf(opt)
  let at = from
  for (let t = first; t < last; t++) at = step(at.params, at.state, gradsAt(t, dtype))
  return at
}
const begin = (opt: optim.Optimizer, p: Params): At => ({ params: p, state: opt.init(p) })
const tensorsOf = ({ params: p, state }: At) => [
  ...Object.values(p),
  ...Object.values(state.slots).flatMap(Object.values),
]

describe('states in eight bits', () => {
  test.each(CASES)('%s keeps codes and units of large tensors, and small ones as they are', async (_, make, slots) => {
    const opt = make({ states: '8bit' })
    const { state } = begin(opt, params())
    for (const slot of slots) {
      expect(state.slots[slot].large.dtype).toBe('uint8')
      expect(state.slots[`${slot}Units`].large.shape).toEqual([22])
      expect(state.slots[slot].small.dtype).toBe('float32')
      expect(`${slot}Units` in state.slots && 'small' in state.slots[`${slot}Units`]).toBe(false)
      expect(opt.stateBytes(params())[slot]).toBe(5600 + 160)
    }
    // The states begin as those of 32 bits do.
    const full = begin(make({}), params()).state
    for (const slot of slots) {
      const signed = !RULES.some((r) => r.slots.some((s) => s.name === slot && s.positive))
      const units = state.slots[`${slot}Units`].large
      const [a, b] = await readAll([
        dequantizeBlockwise({ codes: state.slots[slot].large, units }, { signed }),
        full.slots[slot].large,
      ])
      expect(a).toEqual(b)
    }
  })

  test.each(CASES)('%s moves as with 32 bits, but for rounding', async (_, make) => {
    const opt = make({ lr: 0.01, states: '8bit' })
    const other = make({ lr: 0.01 })
    const [eight, full] = [run(opt, begin(opt, params()), 0, 12), run(other, begin(other, params()), 0, 12)]
    const start = (await params().large.read()) as Float32Array
    const [a, b, c, d] = await readAll([eight.params.large, full.params.large, eight.params.small, full.params.small])
    const moved = (x: ArrayLike<number>) => Float64Array.from(start, (s, i) => x[i] - s)
    const [got, want] = [moved(a), moved(b)]
    const norm = (x: Float64Array) => Math.hypot(...x)
    expect(norm(want)).toBeGreaterThan(0)
    expect(norm(got.map((x, i) => x - want[i])) / norm(want)).toBeLessThan(0.15)
    expect(c).toEqual(d)
  })

  test.each(CASES)('%s goes on bit for bit, for any number of threads, in float32 and bfloat16', async (_, make) => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const opt = make({ lr: 0.01, states: '8bit', clip: { globalNorm: 1 } })
      native().threads(2)
      const whole = await readAll(tensorsOf(run(opt, begin(opt, params(dtype)), 0, 4, dtype)))
      for (const n of [1, 5]) {
        native().threads(n)
        const half = run(opt, begin(opt, params(dtype)), 0, 2, dtype)
        expect(await readAll(tensorsOf(run(opt, half, 2, 4, dtype)))).toEqual(whole)
      }
    }
  })

  test('a group may keep 32 bits, and the bound may be another', () => {
    const opt = optim.adamw({ states: '8bit', min8bitSize: 10, groups: [{ match: ['large'], states: '32bit' }] })
    const { slots } = opt.init(params())
    expect([slots.m.large.dtype, slots.m.small.dtype]).toEqual(['float32', 'uint8'])
    expect(slots.vUnits.small.shape).toEqual([1])
    const wide = optim.adamw({ states: '8bit' }).init(params('float64')).slots
    expect(wide.m.large.dtype).toBe('float64')
  })

  test('wrappers are there around the smaller optimizer too', () => {
    for (const make of [
      (o: optim.Optimizer) => optim.averaged(o),
      (o: optim.Optimizer) => optim.lookahead(o),
      (o: optim.Optimizer) => optim.gradientNoise(o, { first: 'noise' }),
      (o: optim.Optimizer) => optim.larc(o),
      (o: optim.Optimizer) => optim.sam(o),
      (o: optim.Optimizer) => optim.multiTask(o),
      (o: optim.Optimizer) => optim.blockwise(o),
      (o: optim.Optimizer) => optim.adaptiveBatch(o),
    ])
      for (const base of [optim.adamw({ clip: { value: 1 } }), optim.muon(), optim.scheduleFreeAdamw()]) {
        const whole = make(base)
        const small = whole.in8bits!()
        expect(small.name).toBe(whole.name)
        expect(small.clip).toEqual(whole.clip)
        expect(Object.keys(small.init(params()).slots)).toEqual(
          expect.arrayContaining(Object.keys(whole.init(params()).slots)),
        )
        expect(small.in8bits).toBeUndefined()
      }
    expect(optim.averaged(optim.sgd()).in8bits).toBeUndefined()
  })

  test('wrong options are told', () => {
    expect(() => optim.adamw({ states: '4bit' as never })).toThrow('32bit or 8bit')
    expect(() => optim.adamw({ min8bitSize: -1 })).toThrow('min8bitSize')
    expect(() => optim.adamw({ groups: [{ match: ['large'], states: 8 }] })).toThrow('32bit or 8bit')
  })

  test('states of 32 bits are not taken for those of eight', () => {
    const full = optim.adamw().init(params())
    expect(() => optim.adamw({ states: '8bit' }).update(params(), gradsAt(0), full)).toThrow('mUnits')
  })

  test('accumulation gives the step of the whole batch, and the trainer keeps the states in place', async () => {
    class Model {
      weight = tensor(Float32Array.from(normals(1, 5600)), { shape: [70, 80] })
      loss({ x }: Params) {
        return { loss: x.matmul(this.weight).square().mean() }
      }
    }
    const rows = Float32Array.from(normals(2, 560))
    const batch = (from: number, n: number) => ({
      x: { shape: [n, 70], dtype: 'float32' as const, data: rows.slice(70 * from, 70 * (from + n)) },
    })
    const ended = async (parts: ReturnType<typeof batch>[]) => {
      const trainer = new Trainer(new Model(), { optimizer: optim.adamw({ lr: 0.01, states: '8bit' }) })
      await trainer.materialize()
      for (let step = 1; step <= 3; step++) await (await trainer.step(parts, { lr: 0.01, step }))()
      const out = new Float32Array(5600)
      const codes = new Uint8Array(5600)
      trainer.buffer('p:weight').read(out)
      trainer.buffer('s:slots.m.weight').read(codes)
      trainer.close()
      expect(new Set(codes).size).toBeGreaterThan(50)
      return out
    }
    const [one, two] = [await ended([batch(0, 8)]), await ended([batch(0, 4), batch(4, 4)])]
    expect(worst([...two], [...one])).toBeLessThan(1e-3)
  })

  test('the numbers of a step are those of its states taken apart and put together again', async () => {
    const eight = optim.lion({ lr: 0.01, states: '8bit' })
    const full = optim.lion({ lr: 0.01 })
    const { params: p, state } = begin(eight, params())
    const one = eight.update(p, gradsAt(0), state)
    const units = one.state.slots.mUnits.large
    const m = dequantizeBlockwise({ codes: one.state.slots.m.large, units })
    const wide = { step: one.state.step, slots: { m: { large: m, small: one.state.slots.m.small } } }
    const a = eight.update(one.params, gradsAt(1), one.state)
    const b = full.update(one.params, gradsAt(1), wide)
    const kept = quantizeBlockwise(b.state.slots.m.large)
    const [x, y, c, d] = await readAll([a.params.large, b.params.large, a.state.slots.m.large, kept.codes])
    expect(x).toEqual(y)
    expect(c).toEqual(d)
  })
})
