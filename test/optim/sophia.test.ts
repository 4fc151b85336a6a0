import { describe, expect, test } from 'vitest'
import {
  add,
  compile,
  crossEntropy,
  matmul,
  mul,
  optim,
  pow,
  random,
  readAll,
  sub,
  sum,
  tensor,
  type Tensor,
  transpose,
} from '../../lib/index.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals } from './reference.js'

const [rows, width, classes] = [12, 4, 3]
const x = normals(1, rows * width)
const w = normals(2, classes * width).map((v) => v / 2)
const f64 = (numbers: number[], shape: number[]) => tensor(Float64Array.from(numbers), { dtype: 'float64', shape })
const X = f64(x, [rows, width])

/** Mean of estimates over keys. */
async function averaged(estimate: (key: Tensor) => Tensor, size: number, draws: number): Promise<number[]> {
  const one = compile(estimate)
  const total = new Array<number>(size).fill(0)
  for (let i = 0; i < draws; i++) (await one(random.key(i)).read()).forEach((v, j) => (total[j] += v / draws))
  return total
}
const off = (got: number[], want: number[]) => Math.hypot(...got.map((g, i) => g - want[i])) / Math.hypot(...want)

describe('estimates of the curvature', () => {
  test('by labels from the model have the Gauss–Newton diagonal as their mean', async () => {
    const estimate = (key: Tensor) => {
      const params = { w: f64(w, [classes, width]) }
      const objective = optim.objective(
        (p: typeof params) => ({ loss: sum(p.w), logits: matmul(X, transpose(p.w)) }),
        key,
      )
      const moved = [{ name: 'w', p: params.w, site: 0 }]
      return optim.gaussNewton().estimate({ objective: objective as never, params, moved, key, t: tensor(1) }).w
    }
    const exact: number[] = []
    for (let c = 0; c < classes; c++)
      for (let k = 0; k < width; k++) {
        let s = 0
        for (let n = 0; n < rows; n++) {
          const scores = Array.from({ length: classes }, (_, j) =>
            Math.exp(x.slice(n * width, (n + 1) * width).reduce((a, v, i) => a + v * w[j * width + i], 0)),
          )
          const p = scores[c] / scores.reduce((a, b) => a + b)
          s += (x[n * width + k] ** 2 * p * (1 - p)) / rows
        }
        exact.push(s)
      }
    expect(off(await averaged(estimate, classes * width, 1500), exact)).toBeLessThan(0.06)
    // Without the number of rows it is another thing.
    expect(off(await averaged((k) => mul(estimate(k), 1 / rows), classes * width, 50), exact)).toBeGreaterThan(0.8)
  })

  test('by products with the Hessian have its diagonal as their mean, of either sign', async () => {
    const a = f64([2, 0.5, 0, 0.5, -1, 0.2, 0, 0.2, 3], [3, 3])
    const estimate = (key: Tensor) => {
      const params = { w: f64([1, -2, 0.5], [3]) }
      const objective = optim.objective(
        (p: typeof params) => add(mul(sum(mul(p.w, matmul(a, p.w))), 0.5), sum(pow(p.w, 3))),
        key,
      )
      const moved = [{ name: 'w', p: params.w, site: 0 }]
      return optim.hutchinson().estimate({ objective: objective as never, params, moved, key, t: tensor(1) }).w
    }
    expect(off(await averaged(estimate, 3, 3000), [2 + 6, -1 - 12, 3 + 3])).toBeLessThan(0.06)
  })
})

class Classifier {
  weight = f64(w, [classes, width])
  loss({ x: given, y }: Record<string, Tensor>) {
    const logits = matmul(given, transpose(this.weight))
    return { loss: crossEntropy(logits, y, { reduction: 'mean' }), logits }
  }
}
const batch = {
  x: { shape: [rows, width], dtype: 'float64' as const, data: Float64Array.from(x) },
  y: { shape: [rows], dtype: 'int32' as const, data: Int32Array.from(x.slice(0, rows), (v) => (v > 0 ? 1 : 0)) },
}

describe('in the training step', () => {
  test.each([
    ['sophiaG', [3, 6]],
    ['sophiaH', [1, 4]],
  ] as const)('%s estimates every third time, another time with other draws', async (name, due) => {
    const drive = async (seed: number) => {
      const optimizer = optim.optimizerNamed(name, { lr: 0.01, every: 3 })
      const trainer = new Trainer(new Classifier() as never, { optimizer, clip: null, seed })
      await trainer.materialize()
      const h: number[][] = []
      for (let step = 1; step <= 6; step++) {
        await (await trainer.step([batch], { lr: 0.01, step }))()
        const now = new Float64Array(classes * width)
        trainer.buffer('s:slots.h.weight').read(now)
        h.push([...now])
      }
      trainer.close()
      return h
    }
    const h = await drive(1)
    const same = (a: number[], b: number[]) => a.every((v, i) => v === b[i])
    for (let step = 1; step <= 6; step++) {
      const before = step === 1 ? h[0].map(() => 0) : h[step - 2]
      expect(same(before, h[step - 1]), `step ${step}`).toBe(!(due as readonly number[]).includes(step))
    }
    expect(await drive(1)).toEqual(h)
    expect(await drive(2)).not.toEqual(h)
  })

  test('Sophia-G says what it needs', () => {
    const opt = optim.sophiaG()
    const p = { w: f64([1, 2], [2]) }
    expect(() => opt.update(p, p, opt.init(p))).toThrow('needs the objective')
    expect(() =>
      opt.step!(
        optim.objective((q: typeof p) => sum(q.w)),
        p,
        opt.init(p),
      ),
    ).toThrow('logits')
    expect(() => optim.sophiaG({ every: 0 })).toThrow('`every`')
    expect(() => optim.sophiaH({ gamma: 0 })).toThrow('`gamma`')
    expect(() => optim.sophiaG({ gamma: 1 } as object)).toThrow('gamma')
  })

  test('no number of a step is longer than lr', async () => {
    const opt = optim.sophiaH({ lr: 0.1, weightDecay: 0 })
    let params = { w: f64([3, -4, 0], [3]) }
    let state = opt.init(params)
    for (let t = 0; t < 3; t++) {
      const before = await params.w.read()
      const loss = (p: typeof params) => sum(mul(sub(pow(p.w, 4), p.w), 1e12))
      ;({ params, state } = opt.step!(optim.objective(loss, random.key(t)), params, state))
      const [after] = await readAll([params.w])
      after.forEach((v, i) => expect(Math.abs(v - before[i])).toBeLessThan(0.1 + 1e-12))
    }
  })
})
