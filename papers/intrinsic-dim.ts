import { memory, nn, random, type study } from 'steepest'
import { Encoder, tune } from './support/encoder.js'
import { accuracy } from './support/learn.js'
import { prototypes, type Rows } from './support/rows.js'

export const claim: study.Claim = {
  title: 'Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning',
  by: 'Aghajanyan, Gupta, Zettlemoyer, ACL 2021',
  source: 'arXiv 2012.13255',
  says:
    'A pre-trained model can be fine-tuned along a few random directions: the least number of them that reaches 90 % of what fine-tuning every weight gives (d90) is a tiny ' +
    'part of the weights, falls in the course of pre-training, and is far larger for a model that was not pre-trained. A projection by fast transforms does as ' +
    'well as a dense one.',
  criteria: [
    { number: 'ratio', what: 'd90 of the pre-trained model over that of the random one', atMost: 0.3 },
    {
      number: 'rises',
      what: 'largest rise of d90 from a quarter to all of pre-training and from none to a quarter, as a factor',
      atMost: 2.5,
    },
    { number: 'share', what: 'd90 of the pre-trained model over its weights', atMost: 0.05, over: 'every' },
    { number: 'dense', what: 'factor between d90 with Fastfood and with a dense projection', atMost: 2.5 },
    { number: 'length', what: 'largest |‖Pv‖ / ‖v‖ − 1| of ten v in 200 dimensions', atMost: 0.2, over: 'every' },
  ],
  reports: {
    pretrained: 'd90 of the pre-trained model',
    quarter: 'd90 after a quarter of pre-training (2000: more than 1000)',
    random: 'd90 of the random model (2000: more than 1000)',
    layerwise: 'd90 of the pre-trained model with a factor for each layer (SAID)',
    sparse: 'd90 of the pre-trained model with a sparse projection',
    full: 'test accuracy of fine-tuning every weight, in percent',
    fullRandom: 'the same from the random model',
  },
  found:
    'It is pre-training that must have made the task simple: with 20 classes of 4 clusters, of which the task joins ten, fine-tuning gains one point from ' +
    'pre-training, and d90 is 800 with and without (one seed); with 6 classes of 12 it gains five, and d90 differs by a factor of more than ten. A quarter of ' +
    'pre-training hardly lowers it.',
  notShown: 'RoBERTa on GLUE, that larger models have fewer dimensions, and the bound of generalization that follows.',
}

const CLASSES = 6
const DIMS = [2, 5, 10, 20, 50, 100, 200, 500, 1000]
const NONE = 2 * DIMS[DIMS.length - 1]

/** The least dimension with an accuracy, between two on a logarithmic scale; twice the largest of all where none has it. */
function least(points: readonly study.CurvePoint[], target: number): number {
  const i = points.findIndex(({ y }) => y >= target)
  if (i < 0) return NONE
  if (i === 0) return points[0].x
  const [a, b] = [points[i - 1], points[i]]
  return a.x * (b.x / a.x) ** ((target - a.y) / (b.y - a.y))
}

interface Task {
  train: Rows
  test: Rows
  seed: number
  steps: number
  dims: readonly number[]
}

const score = async (net: Encoder, { test }: Task) => 100 * (await accuracy(net.forward(test.x), test.y))

/** Test accuracy by the number of dimensions, each at the better of two rates. */
async function along(start: Encoder, task: Task, options: Partial<memory.IntrinsicOptions> = {}) {
  const { train, seed, steps } = task
  const points: study.CurvePoint[] = []
  for (const dim of task.dims) {
    if (options.layerwise && dim < 5) continue
    const scores = []
    for (const rate of [0.02, 0.1]) {
      const small = memory.intrinsic(start, { dim, seed, ...options })
      // The lower the dimension, the farther each number of it has to go.
      const lr = rate * Math.sqrt(100 / dim)
      scores.push(await score((await tune(small, train, { lr, steps, seed })).merged(), task))
    }
    points.push({ x: dim, y: Math.max(...scores) })
  }
  return points
}

/** A pre-trained body under a new head of two outputs. */
async function starts(seed: number, pick: study.Trial['pick']) {
  const [pre, rest] = [pick(8000, 400), pick(3000, 300)]
  const all = await prototypes(seed, { n: pre + rest, classes: CLASSES, perClass: 12, dim: 50, noise: 1 })
  // The task: which of two halves, drawn at random, a class belongs to.
  const half = random
    .permutation(random.key(seed + 500), CLASSES)
    .less(CLASSES / 2)
    .cast('int32')
  const rows = (from: number, to: number) => ({ x: all.x.slice([[from, to]]), y: all.y.slice([[from, to]]) })
  const binary = ({ x, y }: Rows): Rows => ({ x, y: half.take(y) })
  const net = new Encoder(seed, CLASSES)
  const heads = new Encoder(seed + 1000, 2)
  const task: Task = {
    train: binary(rows(pre, pre + Math.floor(rest / 3))),
    test: binary(rows(pre + Math.floor(rest / 3), pre + rest)),
    seed,
    steps: pick(300, 3),
    dims: pick(DIMS, [5, 10]),
  }
  const at = async (share: number) => {
    const steps = Math.round(share * pick(2000, 8))
    const trained = steps > 0 ? await tune(net, rows(0, pre), { lr: 2e-3, steps, seed }) : net
    const body = Object.entries(nn.parameters(trained)).filter(([name]) => name.startsWith('body'))
    return nn.withTensors(heads, Object.fromEntries(body))
  }
  return { task, at }
}

const whole = async (start: Encoder, task: Task) => score(await tune(start, task.train, { lr: 2e-3, ...task }), task)

async function lengths(start: Encoder, seed: number): Promise<number> {
  let worst = 0
  const small = memory.intrinsic(start, { dim: 200, seed })
  for (let i = 0; i < 10; i++) {
    const v = random.normal(random.key(100 * seed + i), [200])
    const moved = nn.parameters(nn.withTensors(small, { coordinates: v }).merged())
    const squares = Object.entries(nn.parameters(start)).map(([name, t]) => moved[name].sub(t).square().sum())
    const length = squares.reduce((a, b) => a.add(b)).div(v.square().sum())
    worst = Math.max(worst, Math.abs(Math.sqrt(await length.item()) - 1))
  }
  return worst
}

export async function experiment({ seed, pick }: study.Trial): Promise<study.Outcome> {
  const { task, at } = await starts(seed, pick)
  const [none, quarter, all] = [await at(0), await at(0.25), await at(1)]
  const [full, fullRandom] = [await whole(all, task), await whole(none, task)]
  const target = 0.9 * full
  const few = { ...task, dims: task.dims.filter((d) => d <= 200) }
  const curves = {
    pretrained: await along(all, task),
    quarter: await along(quarter, task),
    none: await along(none, task),
  }
  const dense = await along(all, few, { projection: 'dense' })
  const d90 = (points: readonly study.CurvePoint[]) => least(points, target)
  const [pretrained, middle, first] = [d90(curves.pretrained), d90(curves.quarter), d90(curves.none)]
  const size = Object.values(nn.parameters(all)).reduce((n, t) => n + t.size, 0)
  const apart = d90(dense) / pretrained
  return {
    numbers: {
      ratio: pretrained / first,
      rises: Math.max(pretrained / middle, middle / first),
      share: pretrained / size,
      dense: Math.max(apart, 1 / apart),
      length: await lengths(all, seed),
      pretrained,
      quarter: middle,
      random: first,
      layerwise: d90(await along(all, few, { layerwise: true })),
      sparse: d90(await along(all, few, { projection: 'sparse' })),
      full,
      fullRandom,
    },
    curves: {
      'pre-trained': curves.pretrained,
      'a quarter of that': curves.quarter,
      'not pre-trained': curves.none,
      'dense projection': dense,
    },
  }
}

export const control: study.Control = {
  what: 'all rows of the projection are one: every weight moves by the same number',
  fails: ['share'],
  async experiment({ seed, pick }) {
    const { task, at } = await starts(seed, pick)
    const start = await at(1)
    const projection: memory.Project = (d, { size, total }) => d.sum().div(Math.sqrt(total)).broadcastTo([size])
    const points = await along(start, task, { projection })
    const size = Object.values(nn.parameters(start)).reduce((n, t) => n + t.size, 0)
    return { numbers: { share: least(points, 0.9 * (await whole(start, task))) / size } }
  },
}

export const plot: study.Plot = { x: 'dimensions', y: 'test accuracy, %', logX: true }
