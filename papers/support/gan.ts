import { compile, grad, nn, type optim, random, type Tensor, tensor } from 'steepest'
import { keyOf } from './keys.js'

const [MODES, ROWS, NOISE] = [8, 128, 0.05]

/** Points around eight places on a circle of radius 1. */
function ring(key: Tensor): Tensor {
  const angle = random
    .integers(key, [ROWS], 0, MODES)
    .cast('float32')
    .mul((2 * Math.PI) / MODES)
  const centers = angle
    .cos()
    .expandDims(1)
    .mul(tensor([1, 0]))
    .add(
      angle
        .sin()
        .expandDims(1)
        .mul(tensor([0, 1])),
    )
  return centers.add(random.normal(random.foldIn(key, 1), [ROWS, 2]).mul(NOISE))
}

/**
 * Trains a generator and a discriminator of 64-64 against each other on a ring of eight Gaussians, both by an optimizer.
 * @returns how many of the eight the generator makes, and the share of 2000 points within four deviations of one, in percent
 */
export async function ringGan(
  make: () => optim.Optimizer,
  seed: number,
  steps: number,
): Promise<{ modes: number; good: number }> {
  type Weights = Record<string, Tensor>
  const maker = new nn.MLP([4, 64, 64, 2], { seed })
  const judge = new nn.MLP([2, 64, 64, 1], { seed: seed + 1 })
  const drawn = (p: Weights, key: Tensor, n: number) => nn.withTensors(maker, p).forward(random.normal(key, [n, 4]))
  const score = (p: Weights, x: Tensor) => nn.withTensors(judge, p).forward(x)
  const [first, second] = [make(), make()]
  const step = compile(
    (g: Weights, d: Weights, gState: optim.OptimizerState, dState: optim.OptimizerState, key: Tensor) => {
      const real = ring(random.foldIn(key, 0))
      const fake = drawn(g, random.foldIn(key, 10), ROWS)
      const loss = (p: Weights) => score(p, real).neg().softplus().mean().add(score(p, fake).softplus().mean())
      const judged = second.update(d, grad(loss)(d), dState)
      const fooled = (p: Weights) =>
        score(judged.params, drawn(p, random.foldIn(key, 20), ROWS))
          .neg()
          .softplus()
          .mean()
      return { d: judged, g: first.update(g, grad(fooled)(g), gState) }
    },
  )
  let g = { params: nn.parameters(maker), state: first.init(nn.parameters(maker)) }
  let d = { params: nn.parameters(judge), state: second.init(nn.parameters(judge)) }
  for (let t = 1; t <= steps; t++) {
    const next = step(g.params, d.params, g.state, d.state, random.foldIn(keyOf(seed, 'data'), t))
    g = next.g
    d = next.d
    if (t % 50 === 0) await g.params[Object.keys(g.params)[0]].read()
  }
  const points = await drawn(g.params, keyOf(seed, 'other'), 2000).read()
  const hits = new Array<number>(MODES).fill(0)
  for (let i = 0; i < 2000; i++) {
    const [x, y] = [Number(points[2 * i]), Number(points[2 * i + 1])]
    const mode = (Math.round((Math.atan2(y, x) * MODES) / (2 * Math.PI)) + MODES) % MODES
    const angle = (mode * 2 * Math.PI) / MODES
    if (Math.hypot(x - Math.cos(angle), y - Math.sin(angle)) < 4 * NOISE) hits[mode]++
  }
  return { modes: hits.filter((n) => n >= 20).length, good: hits.reduce((a, b) => a + b, 0) / 20 }
}
