import { describe, expect, test } from 'vitest'
import { grad, nn, optim, random, type Tensor } from '../../lib/index.js'

const names = (model: unknown) => Object.keys(nn.parameters(model))

/** A model with every kind of parameter: a table, a gain, matrices, a head. */
class Model extends nn.Module {
  table: nn.Embedding
  norm: nn.RMSNorm
  hidden: nn.Linear
  head: nn.Linear
  constructor(width: number) {
    super()
    const keys = new nn.Keys(1)
    this.table = new nn.Embedding(7, width, { key: keys.next() })
    this.norm = new nn.RMSNorm(width)
    this.hidden = new nn.Linear(width, 2 * width, { key: keys.next() })
    this.head = new nn.Linear(2 * width, 3, { key: keys.next() })
  }
}

describe('nn.mup', () => {
  test('tells apart what grows', () => {
    const { kinds, scales } = nn.mup(new Model(64), { base: new Model(16) })
    expect(kinds).toEqual({
      'table.weight': 'input',
      'norm.weight': 'input',
      'hidden.weight': 'hidden',
      'hidden.bias': 'input',
      'head.weight': 'output',
      'head.bias': 'fixed',
    })
    expect(scales).toEqual({
      'table.weight': { init: 1, lr: 4 },
      'norm.weight': { init: 1, lr: 4 },
      'hidden.weight': { init: 1, lr: 1 },
      'hidden.bias': { init: 1, lr: 4 },
      'head.weight': { init: 0.5, lr: 0.25 },
      'head.bias': { init: 1, lr: 1 },
    })
  })

  test('scales the rates of Adam as its own table has them, and weights that begin alike at any width', () => {
    const { scales } = nn.mup(new Model(64), { base: new Model(16), optimizer: 'adam', init: 'constant' })
    expect(scales['table.weight']).toEqual({ init: 1, lr: 1 })
    expect(scales['hidden.weight']).toEqual({ init: 0.5, lr: 0.25 })
    expect(scales['head.weight']).toEqual({ init: 0.25, lr: 0.25 })
  })

  test('changes nothing at the base width, and gives groups that the optimizer takes', async () => {
    const model = new Model(16)
    expect(nn.mup(model, { base: new Model(16) }).groups).toEqual([])
    const wide = nn.mup(new Model(64), { base: model })
    const before = await new Model(64).head.weight.read()
    const after = await wide.model.head.weight.read()
    expect([...after]).toEqual([...before].map((v) => v / 2))
    const optimizer = optim.sgd({ lr: 1, groups: wide.groups })
    const params = nn.parameters(wide.model)
    const ones = Object.fromEntries(Object.entries(params).map(([k, p]) => [k, p.mul(0).add(1)]))
    const next = optimizer.update(params, ones, optimizer.init(params)).params
    for (const [k, by] of [
      ['norm.weight', 4],
      ['head.weight', 0.25],
      ['hidden.weight', 1],
    ] as const) {
      expect((await params[k].sub(next[k]).read())[0]).toBeCloseTo(by, 5)
    }
  })

  test('takes kinds by name, and says what does not fit', () => {
    const base = new Model(16)
    const { kinds } = nn.mup(new Model(64), { base, kinds: { 'hidden.weight': 'output' } })
    expect(kinds['hidden.weight']).toBe('output')
    expect(() => nn.mup(base, { base, kinds: { 'hidden.wieght': 'output' } })).toThrow('Did you mean `hidden.weight`?')
    expect(() => nn.mup(base, { base: new nn.Linear(2, 2) })).toThrow('no such parameter in it')
    expect(() => nn.mup(base, { base, optimizer: 'lion' as never })).toThrow('sgd or adam')
    expect(names(base)).toHaveLength(6)
  })
})

describe('nn.abcRegime', () => {
  test.each([
    ['µP', { a: [-0.5, 0, 0.5], b: [0.5, 0.5, 0.5], c: 0 }, 0, 'features'],
    ['NTP', { a: [0, 0.5, 0.5], b: [0, 0, 0], c: 0 }, 0.5, 'kernel'],
    ['the standard one at rate 1/n', { a: [0, 0, 0], b: [0, 0.5, 0.5], c: 1 }, 0.5, 'kernel'],
    ['the standard one at a fixed rate', { a: [0, 0, 0], b: [0, 0.5, 0.5], c: 0 }, -1, 'unstable'],
    ['mean field, one hidden layer', { a: [0, 1], b: [0, 0], c: -1 }, 0, 'features'],
  ] as const)('%s', (_, exponents, r, regime) => {
    expect(nn.abcRegime(exponents)).toEqual({ r, regime })
  })

  test('wants as many of both', () => {
    expect(() => nn.abcRegime({ a: [0, 1], b: [0], c: 0 })).toThrow('2 and 1')
  })
})

describe('nn.coordinateCheck', () => {
  const x = random.normal(random.key(0), [16, 8], { dtype: 'float64' })
  const y = random.normal(random.key(1), [16, 1], { dtype: 'float64' })

  /** A model of a width that takes SGD steps in the standard parametrization or in µP. */
  const make = (maximal: boolean) => (width: number) => {
    const plain = (w: number) =>
      new nn.MLP([8, w, w, 1], { activation: 'tanh', dtype: 'float64', seed: 3, bias: false })
    const { model, groups } = maximal ? nn.mup(plain(width), { base: plain(32) }) : { model: plain(width), groups: [] }
    const hidden = (m: nn.MLP): Tensor => m.layers[1].forward(m.layers[0].forward(x).tanh())
    return {
      params: model,
      loss: (m: nn.MLP) => m.forward(x).sub(y).square().mean(),
      probe: (m: nn.MLP) => ({ hidden: hidden(m), output: m.forward(x) }),
      optimizer: optim.sgd({ lr: 0.2, groups }),
    }
  }

  test('sees features move as far at any width in µP, and further in wider networks without', async () => {
    const options = { widths: [32, 64, 128, 256], steps: 4 }
    const [mup, standard] = [
      await nn.coordinateCheck(make(true), options),
      await nn.coordinateCheck(make(false), options),
    ]
    expect(Math.abs(mup.slopes.hidden.change)).toBeLessThan(0.15)
    expect(Math.abs(mup.slopes.hidden.size)).toBeLessThan(0.15)
    expect(standard.slopes.hidden.change).toBeGreaterThan(0.5)
    expect(mup.size.output).toHaveLength(4)
  })

  test('is what a step by hand gives', async () => {
    const { change } = await nn.coordinateCheck(make(false), { widths: [4, 8], steps: 1 })
    const { params, loss, probe } = make(false)(8)
    const g = grad(loss)(params)
    const weights = nn.parameters(params)
    const moved = Object.fromEntries(Object.entries(weights).map(([k, w]) => [k, w.sub(nn.parameters(g)[k].mul(0.2))]))
    const after = probe(nn.withTensors(params, moved)).hidden
    const by = await after.sub(probe(params).hidden).abs().mean().item()
    expect(change.hidden[1]).toBeCloseTo(by, 12)
  })

  test('wants two widths', async () => {
    await expect(nn.coordinateCheck(make(false), { widths: [8] })).rejects.toThrow('two whole numbers or more')
  })
})
