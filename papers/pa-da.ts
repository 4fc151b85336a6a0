import { data, random, type study } from 'steepest'
import { kendall, shares, varianceOf } from './support/numbers.js'
import { EDGES, OPS, type Path, PATHS, supernet } from './support/supernet.js'

export const claim: study.Claim = {
  title: 'PA&DA: Jointly Sampling PAth and DAta for Consistent NAS',
  by: 'Lu et al., CVPR 2023',
  source: 'arXiv 2302.14772',
  says:
    'The gradient of a network whose paths and examples are drawn at random varies least where both are drawn in proportion to the norms of their ' +
    'gradients; what stands for these costs nothing more. A network of all paths that is trained so ranks them at least as well.',
  criteria: [
    {
      number: 'exact',
      what: 'variance of a weighted gradient of one example over that of equal chances, drawn by the norms of their gradients',
      atMost: 0.6,
    },
    { number: 'proxy', what: 'the same, drawn by the norms at the logits', atMost: 0.8 },
    {
      number: 'variance',
      what: 'variance of a weighted step, batch 50, paths by the norms of their gradients and examples by their scores, over that of equal chances',
      atMost: 0.9,
    },
    {
      number: 'ranking',
      what: 'rank correlation with 48 paths trained alone, minus that of equal chances',
      atLeast: -0.05,
    },
  ],
  reports: {
    examples: 'the same with paths of equal chances, so that examples alone are drawn by their scores',
    paths: 'the same with examples of equal chances, so that paths alone are drawn by the norms of their gradients',
    operations: 'the same with paths drawn by the scores of their operations, as they are in training',
    tau: 'rank correlation with paths trained alone (Kendall)',
    tauEven: 'the same with equal chances',
    best: 'test accuracy alone of the path that ranks first of the 48, in percent',
    bestEven: 'the same with equal chances',
  },
  found:
    'Scores of single operations, as training has them, do not make the chances of paths that the theory asks for: those without weights score 0, and with ' +
    'hardly any chance left for them a weighted step varies 10,000 times as much as with equal chances; training draws by them without weights, as the ' +
    'authors do. Scores of examples come from other paths and other times: weighted by them alone, a step of all paths varies more than with equal ' +
    'chances, while on one path with scores of now it varies a quarter. It was 4 times (one seed) where what was not drawn for an epoch counts as 0, as in ' +
    'the authors’ code, so scores are kept here.',
  notShown: 'NAS-Bench-201, the space of DARTS on CIFAR-10 and ImageNet.',
}

const BATCH = 50
/** Of equal chances something is always left. */
const MOST = 0.95

type Net = Awaited<ReturnType<typeof supernet>>
type Weights = Parameters<Net['accuracy']>[0]

/** How examples of one path would best be drawn, at some times of its training. */
async function along(net: Net, seed: number, n: number, steps: number, shuffled: boolean) {
  const found: { step: number; exact: number; proxy: number }[] = []
  const sampler = data.importance(n, { seed })
  const drawn = await sampler.draw(steps * BATCH, 0)
  const order = shuffled ? await random.permutation(random.key(seed), n).read() : undefined
  const mixed = (list: readonly number[]) => (order ? list.map((_, i) => list[Number(order[i])]) : list)
  const path: Path = [2, 3, 2, 3]
  const part = (t: number) => ({
    ids: drawn.ids.slice((t - 1) * BATCH, t * BATCH),
    weights: drawn.weights.slice((t - 1) * BATCH, t * BATCH),
    path,
  })
  await net.train(steps, part, async (t, _, params) => {
    if (t % Math.ceil(steps / 6) !== 0) return
    const { norms, scores, square } = await net.examples(params, path)
    const even = varianceOf(
      norms,
      norms.map(() => 1 / n),
      square,
    )
    found.push({
      step: t,
      exact: varianceOf(norms, shares(mixed(norms)), square) / even,
      proxy: varianceOf(norms, shares(mixed(scores)), square) / even,
    })
  })
  const mean = (f: (r: (typeof found)[number]) => number) => found.reduce((s, r) => s + f(r), 0) / found.length
  return { found, exact: mean((r) => r.exact), proxy: mean((r) => r.proxy) }
}

/** Variances of a step whose path and examples are drawn in some ways, each weighted to the mean over all, over that of equal chances. */
async function stepVariances(net: Net, params: Weights, edges: readonly Float64Array[], scores: Float64Array) {
  const all: Awaited<ReturnType<Net['examples']>>[] = []
  for (const path of PATHS) all.push(await net.examples(params, path))
  const mean = await net.meanSquare(params, PATHS)
  const total = (paths: readonly number[], examples: ArrayLike<number>) =>
    all.reduce((sum, { norms, square }, i) => {
      const own = varianceOf(norms, examples, square) / BATCH + square
      return sum + own / (PATHS.length ** 2 * paths[i])
    }, -mean)
  const equal = PATHS.map(() => 1 / PATHS.length)
  const byNorm = shares(all.map(({ square }) => Math.sqrt(square)))
  const byOps = PATHS.map((path) => path.reduce((product, op, e) => product * edges[e][op], 1))
  const even = scores.map(() => 1 / scores.length)
  const plain = total(equal, even)
  return {
    variance: total(byNorm, scores) / plain,
    examples: total(equal, scores) / plain,
    paths: total(byNorm, even) / plain,
    operations: total(byOps, even) / plain,
  }
}

/** Trains all paths at once, drawing by what was seen of paths and examples, or with equal chances, and tells how paths rank. */
async function ranked(net: Net, seed: number, n: number, epochs: number, most: number, paths: readonly Path[]) {
  const perEpoch = Math.floor(n / BATCH)
  const examples = data.importance(n, { seed })
  const edges = Array.from({ length: EDGES }, (_, e) => data.importance(OPS, { seed: 10 * seed + e }))
  let [drawn, ops]: [data.Drawn, data.Drawn[]] = [await examples.draw(n, 0), []]
  const draw = async (share: number) => {
    drawn = await examples.draw(n, share)
    ops = await Promise.all(edges.map((edge) => edge.draw(perEpoch, share)))
  }
  await draw(0)
  const found: Awaited<ReturnType<typeof stepVariances>>[] = []
  const at = (t: number) => {
    const i = (t - 1) % perEpoch
    const cut = <T extends Int32Array | Float32Array>(list: T) => list.slice(i * BATCH, (i + 1) * BATCH) as T
    return { ids: cut(drawn.ids), weights: cut(drawn.weights), path: ops.map((o) => o.ids[i]) }
  }
  const params = await net.train(epochs * perEpoch, at, async (t, { scores, norms }, now) => {
    const { ids, path } = at(t)
    examples.observe(ids, scores)
    path.forEach((op, e) => edges[e].observe([op], [op < 2 ? 0 : norms[2 * e + op - 2]]))
    if (t % perEpoch !== 0) return
    const share = (most * t) / (epochs * perEpoch)
    await draw(share)
    if (most === 0 || (t / perEpoch) % Math.ceil(epochs / 3) !== 0) return
    const odds = edges.map((edge) => edge.probabilities(share))
    found.push(await stepVariances(net, now, odds, examples.probabilities(share)))
  })
  const accuracies = []
  for (const path of paths) accuracies.push(await net.accuracy(params, path))
  const mean = (key: keyof (typeof found)[number]) => found.reduce((s, r) => s + r[key], 0) / found.length
  return { accuracies, variance: mean('variance'), parts: [mean('examples'), mean('paths'), mean('operations')] }
}

export async function experiment({ seed, pick }: study.Trial): Promise<study.Outcome> {
  const [n, epochs] = [pick(1000, 100), pick(75, 3)]
  const net = await supernet(seed, n, pick(1000, 50))
  const { found, exact, proxy } = await along(net, seed, n, pick(300, 6), false)
  const order = await random.permutation(random.key(seed), PATHS.length).read()
  const paths = Array.from(order.slice(0, pick(48, 3)), (i) => PATHS[Number(i)])
  const alone: number[] = []
  for (const path of paths) {
    const drawn = await data.importance(n, { seed }).draw(pick(200, 3) * BATCH, 0)
    const part = (t: number) => ({
      ids: drawn.ids.slice((t - 1) * BATCH, t * BATCH),
      weights: drawn.weights.slice((t - 1) * BATCH, t * BATCH),
      path,
    })
    alone.push(100 * (await net.accuracy(await net.train(pick(200, 3), part), path)))
  }
  const ours = await ranked(net, seed, n, epochs, MOST, paths)
  const even = await ranked(net, seed, n, epochs, 0, paths)
  const first = (list: readonly number[]) => alone[list.indexOf(Math.max(...list))]
  const [tau, tauEven] = [kendall(ours.accuracies, alone), kendall(even.accuracies, alone)]
  return {
    numbers: {
      exact,
      proxy,
      variance: ours.variance,
      ranking: tau - tauEven,
      examples: ours.parts[0],
      paths: ours.parts[1],
      operations: ours.parts[2],
      tau,
      tauEven,
      best: first(ours.accuracies),
      bestEven: first(even.accuracies),
    },
    curves: {
      'by the norms of gradients': found.map(({ step, exact: y }) => ({ x: step, y })),
      'by the norms at the logits': found.map(({ step, proxy: y }) => ({ x: step, y })),
    },
  }
}

export const control: study.Control = {
  what: 'the scores of other examples',
  fails: ['exact', 'proxy'],
  async experiment({ seed, pick }) {
    const n = pick(1000, 100)
    const { exact, proxy } = await along(await supernet(seed, n, pick(1000, 50)), seed, n, pick(300, 6), true)
    return { numbers: { exact, proxy } }
  },
}

export const plot: study.Plot = { x: 'step', y: 'variance over that of equal chances' }
