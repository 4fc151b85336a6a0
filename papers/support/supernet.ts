import {
  compile,
  concat,
  grad,
  logSoftmax,
  nn,
  oneHot,
  optim,
  perExampleNorms,
  readAll,
  relu,
  tanh,
  type Tensor,
  tensor,
} from 'steepest'
import { prototypes, type Rows } from './rows.js'

export const EDGES = 4
/** Nothing, the input itself, and two layers. */
export const OPS = 4
const WIDTH = 32
const DIM = 32
const CLASSES = 10

type Params = Record<string, Tensor>

/** A network of four edges, each of which adds what one of four operations makes of its input. */
class SuperNet extends nn.Module {
  stem: nn.Linear
  edges: { relu: nn.Linear; tanh: nn.Linear }[]
  head: nn.Linear

  constructor(seed: number) {
    super()
    const keys = new nn.Keys(seed)
    const layer = (from: number, to: number) => new nn.Linear(from, to, { key: keys.next() })
    this.stem = layer(DIM, WIDTH)
    this.edges = Array.from({ length: EDGES }, () => ({ relu: layer(WIDTH, WIDTH), tanh: layer(WIDTH, WIDTH) }))
    this.head = layer(WIDTH, CLASSES)
  }

  /** @param gates [edges, operations], one of each row 1 */
  forward(x: Tensor, gates: Tensor): Tensor {
    const h = this.edges.reduce((at, edge, i) => {
      const gate = (op: number) =>
        gates.slice([
          [i, i + 1],
          [op, op + 1],
        ])
      const made = at.mul(gate(1)).add(relu(edge.relu.forward(at)).mul(gate(2)))
      return at.add(made.add(tanh(edge.tanh.forward(at)).mul(gate(3)))).mul(Math.SQRT1_2)
    }, this.stem.forward(x))
    return this.head.forward(h)
  }
}

/** A choice of one operation for every edge. */
export type Path = readonly number[]

export const gatesOf = (path: Path): Tensor =>
  tensor(
    Float32Array.from({ length: EDGES * OPS }, (_, i) => Number(path[Math.floor(i / OPS)] === i % OPS)),
    { shape: [EDGES, OPS] },
  )

/** All 256. */
export const PATHS: readonly Path[] = Array.from({ length: OPS ** EDGES }, (_, i) =>
  Array.from({ length: EDGES }, (_, e) => Math.floor(i / OPS ** e) % OPS),
)

/** What a step tells. */
export interface Told {
  /** |softmax(z) − onehot(y)| of every example. */
  scores: Float32Array
  /** |∂w| + |∂b| of the two layers of every edge, [edges, 2]. */
  norms: Float32Array
}

/** Training and measuring on one task; programs are shared by all paths. */
export async function supernet(seed: number, n: number, test: number) {
  const all = await prototypes(seed, { n: n + test, classes: CLASSES, perClass: 3, dim: DIM, noise: 0.9 })
  const part = (from: number, to: number): Rows => ({ x: all.x.slice([[from, to]]), y: all.y.slice([[from, to]]) })
  const [data, held] = [part(0, n), part(n, n + test)]
  const model = new SuperNet(seed)
  const losses = (p: Params, x: Tensor, y: Tensor, gates: Tensor) => {
    const log = logSoftmax(nn.withTensors(model, p).forward(x, gates))
    const hot = oneHot(y, CLASSES)
    return { each: log.mul(hot).sum({ axis: -1 }).neg(), scores: log.exp().sub(hot).square().sum({ axis: -1 }).sqrt() }
  }
  const optimizer = optim.sgd({ lr: 0.05, momentum: 0.9, weightDecay: 2.5e-4 })
  const step = compile(
    (p: Params, state: optim.OptimizerState, at: Tensor, weights: Tensor, gates: Tensor, lr: Tensor) => {
      const [x, y] = [data.x.take(at), data.y.take(at)]
      const g = grad((q: Params) => losses(q, x, y, gates).each.mul(weights).mean())(p)
      const size = (name: string) => g[name].square().sum().sqrt().reshape([1])
      const norms = Array.from({ length: EDGES }, (_, e) =>
        (['relu', 'tanh'] as const).map((op) => size(`edges.${e}.${op}.weight`).add(size(`edges.${e}.${op}.bias`))),
      ).flat()
      return { ...optimizer.update(p, g, state, { lr }), told: [losses(p, x, y, gates).scores, ...norms] }
    },
  )
  const right = compile((p: Params, gates: Tensor) =>
    nn.withTensors(model, p).forward(held.x, gates).argmax({ axis: -1 }).equal(held.y).cast('float64').mean(),
  )
  const gradient = compile((p: Params, gates: Tensor) => {
    const g = grad((q: Params) => losses(q, data.x, data.y, gates).each.mean())(p)
    const all = concat(Object.values(g).map((t) => t.reshape([t.size])))
    return { all, square: all.square().sum() }
  })
  const each = compile((p: Params, gates: Tensor) => {
    const one = (q: Params, at: { x: Tensor; y: Tensor }) =>
      losses(q, at.x.reshape([1, DIM]), at.y.reshape([1]), gates).each.sum()
    const { total } = perExampleNorms(one)(p, data)
    return { norms: total, scores: losses(p, data.x, data.y, gates).scores }
  })
  return {
    data,
    /** Trains; the examples, their weights and the path of each step (from 1) come from outside. */
    async train(
      steps: number,
      at: (step: number) => { ids: Int32Array; weights: Float32Array; path: Path },
      onStep?: (step: number, told: Told, p: Params) => Promise<void>,
    ): Promise<Params> {
      let p: Params = nn.parameters(model)
      let state = optimizer.init(p)
      for (let t = 1; t <= steps; t++) {
        const { ids, weights, path } = at(t)
        const lr = tensor(0.025 * (1 + Math.cos((Math.PI * (t - 1)) / steps)), { dtype: 'float64' })
        const next = step(p, state, tensor(ids), tensor(weights), gatesOf(path), lr)
        ;[p, state] = [next.params, next.state]
        const told = (await readAll(next.told)) as Float32Array[]
        if (onStep) await onStep(t, { scores: told[0], norms: Float32Array.from(told.slice(1), (v) => v[0]) }, p)
      }
      return p
    },
    /** Norms of the gradients of all examples on a path, and what stands for them, and the norm of their mean. */
    async examples(p: Params, path: Path): Promise<{ norms: number[]; scores: number[]; square: number }> {
      const { norms, scores } = each(p, gatesOf(path))
      const [a, b, c] = await readAll([norms, scores, gradient(p, gatesOf(path)).square])
      return { norms: Array.from(a, Number), scores: Array.from(b, Number), square: Number(c[0]) }
    },
    /** The squared norm of the mean over some paths of their gradients. */
    async meanSquare(p: Params, paths: readonly Path[]): Promise<number> {
      const sum = paths.reduce<Tensor | undefined>((s, path) => {
        const { all: g } = gradient(p, gatesOf(path))
        return s ? s.add(g) : g
      }, undefined)!
      return await sum.div(paths.length).square().sum().item()
    },
    accuracy: async (p: Params, path: Path) => await right(p, gatesOf(path)).item(),
  }
}
