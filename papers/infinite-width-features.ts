import { compile, nn, optim, random, type study, type Tensor, tanh, valueAndGrad } from 'steepest'
import { keyOf } from './support/keys.js'
import { logSlope } from './support/numbers.js'
import { BASE, cbow, embedded, purity, words } from './support/words.js'

export const claim: study.Claim = {
  title: 'Feature Learning in Infinite-Width Neural Networks (Tensor Programs IV)',
  by: 'Yang, Hu, ICML 2021',
  source: 'arXiv 2011.14522',
  says:
    'In the standard and in the neural tangent parametrization, features stop to move as a network gets wider; there is one parametrization, µP, ' +
    'in which every layer learns features at any width, and an exponent r, computed from the scales alone, tells which is which. So word2vec ' +
    'learns better vectors as it gets wider in µP, while in the others they stay what they were drawn as.',
  criteria: [
    { number: 'mupLow', what: 'slope of log change of the features by log width in µP', atLeast: -0.1 },
    { number: 'mupHigh', what: 'the same', atMost: 0.1 },
    { number: 'ntp', what: 'the same in the neural tangent parametrization', atMost: -0.7 },
    { number: 'standard', what: 'the same in the standard parametrization with rate 1/n', atMost: -0.7 },
    {
      number: 'fell',
      what: 'loss after over loss before, worst of all widths and parametrizations',
      atMost: 0.95,
    },
    { number: 'rMup', what: 'exponent r of µP, away from 0', atMost: 1e-12, over: 'every' },
    {
      number: 'rNtp',
      what: 'exponent r of the neural tangent parametrization, away from 1/2',
      atMost: 1e-12,
      over: 'every',
    },
    {
      number: 'purity',
      what: 'word2vec of width 512: share of words whose nearest is of the same part of the text, µP minus neural tangent',
      atLeast: 0.2,
      over: 'every',
    },
    { number: 'wider', what: 'the same share in µP, width 512 minus width 64', atLeast: 0.03 },
    { number: 'wordsFell', what: 'loss of word2vec over that at first, the worse', atMost: 0.5, over: 'every' },
  ],
  reports: {
    smallest: 'change of the features in µP at the smallest width',
    widest: 'the same at the largest',
    drawn: 'share of words whose nearest is of the same part, vectors as they are drawn, width 512',
    at64: 'the same after training at width 64, where all parametrizations are one',
    mup512: 'the same in µP at width 512',
    ntp512: 'the same in the neural tangent parametrization',
    standard512: 'the same in the standard one with rate 1/n',
  },
  notShown:
    'Analogies of words, few-shot Omniglot, and the infinite-width limits themselves, of which that of µP is the best of all widths.',
  found:
    'That the loss of the small networks falls by a tenth in ten steps failed on one of eight seeds (0.93, in the mean 0.84), where the bound was one for every seed. ' +
    'Word2vec learns from the text that is on the machine (declarations of TypeScript), where a word’s topic is the sixteenth of the text in which it mostly stands. ' +
    'The rate is chosen at width 64, where the loss diverges from 80 on in batches of 128 and is lowest at 20. The loss of the neural tangent parametrization is the lower one at width 512: ' +
    'it learns the words that are told, from vectors that hardly move.',
}

const [INPUTS, EXAMPLES, STEPS, RATE] = [10, 32, 10, 0.5]
const WIDTHS = [128, 256, 512, 1024]

/** Weights by width and rates by layer: each parametrization with all weights N(0, 1/inputs) or as it scales them. */
type Parametrization = (width: number, seed: number) => { model: nn.MLP; groups: optim.ParameterGroup[] }

const standardModel = (width: number, seed: number): nn.MLP => {
  const model = new nn.MLP([INPUTS, width, width, 1], { activation: 'tanh', bias: false, dtype: 'float64', seed })
  const keys = new nn.Keys(seed)
  for (const layer of model.layers) {
    const [, inputs] = layer.weight.shape
    // Inputs come scaled by 1/√INPUTS, so that the first layer begins as N(0, 1).
    const std = layer === model.layers[0] ? 1 : 1 / Math.sqrt(inputs)
    layer.weight = nn.init.normal(std)(keys.next(), layer.weight.shape, 'float64')
  }
  return model
}
const rated = (layers: readonly number[]): optim.ParameterGroup[] =>
  layers.map((lrScale, i) => ({ match: [`layers.${i}.weight`], lrScale }))

const mup: Parametrization = (width, seed) => nn.mup(standardModel(width, seed), { base: standardModel(1, seed) })
const ntp: Parametrization = (width, seed) => ({
  model: standardModel(width, seed),
  groups: rated([1, 1 / width, 1 / width]),
})
const standard: Parametrization = (width, seed) => ({
  model: standardModel(width, seed),
  groups: rated([1 / width, 1 / width, 1 / width]),
})

/** What ten steps do to the Gram matrix of the last hidden layer, |K' − K| / |K|, and to the loss. */
async function movement(parametrization: Parametrization, width: number, seed: number) {
  const { model, groups } = parametrization(width, seed)
  const x = random.normal(keyOf(seed, 'data'), [EXAMPLES, INPUTS], { dtype: 'float64' })
  const y = x
    .slice([null, [0, 1]])
    .mul(x.slice([null, [1, 2]]))
    .sign()
  const scaled = x.div(Math.sqrt(INPUTS))
  const begin = model.forward(scaled)
  // The output of the first network is taken off: it begins at 0 in all.
  const loss = (m: nn.MLP) => m.forward(scaled).sub(begin).sub(y).square().mean()
  const gram = (m: nn.MLP): Tensor => {
    const h = tanh(m.layers[1].forward(tanh(m.layers[0].forward(scaled))))
    return h.matmul(h.transpose()).div(width)
  }
  const optimizer = optim.sgd({ lr: RATE, groups })
  const step = compile((m: nn.MLP, state: optim.OptimizerState) => {
    const [, grads] = valueAndGrad(loss)(m)
    return optimizer.update(m, grads, state)
  })
  let at = { params: model, state: optimizer.init(model) }
  for (let t = 0; t < STEPS; t++) at = step(at.params, at.state)
  const size = (k: Tensor) => k.square().sum().sqrt()
  const moved = await size(gram(at.params).sub(gram(model)))
    .div(size(gram(model)))
    .item()
  return { moved, fell: await loss(at.params).div(loss(model)).item() }
}

const WIDE = 512
const textOf = ({ pick }: study.Trial) => words(pick(Infinity, 100_000))

async function byWords(trial: study.Trial) {
  const text = await textOf(trial)
  const wide = trial.pick(WIDE, 128)
  const small = await embedded(text, 'mup', BASE, trial)
  const [m, n, s] = [
    await embedded(text, 'mup', wide, trial),
    await embedded(text, 'ntp', wide, trial),
    await embedded(text, 'standard', wide, trial),
  ]
  return {
    purity: m.purity - n.purity,
    wider: m.purity - small.purity,
    wordsFell: Math.max(m.last / m.first, n.last / n.first),
    drawn: await purity(text, cbow('ntp', text.size, wide, trial.seed).model.input.weight),
    at64: small.purity,
    mup512: m.purity,
    ntp512: n.purity,
    standard512: s.purity,
  }
}

async function byWidth(parametrization: Parametrization, seed: number, widths: readonly number[]) {
  const points: study.CurvePoint[] = []
  let fell = 0
  for (const width of widths) {
    const result = await movement(parametrization, width, seed)
    points.push({ x: width, y: result.moved })
    fell = Math.max(fell, result.fell)
  }
  return { points, fell, slope: logSlope(points) }
}

export async function experiment(trial: study.Trial): Promise<study.Outcome> {
  const { seed, pick } = trial
  const widths = pick(WIDTHS, [16, 32])
  const [m, n, s] = [
    await byWidth(mup, seed, widths),
    await byWidth(ntp, seed, widths),
    await byWidth(standard, seed, widths),
  ]
  const exponents = {
    mup: nn.abcRegime({ a: [-0.5, 0, 0.5], b: [0.5, 0.5, 0.5], c: 0 }),
    ntp: nn.abcRegime({ a: [0, 0.5, 0.5], b: [0, 0, 0], c: 0 }),
  }
  return {
    numbers: {
      mupLow: m.slope,
      mupHigh: m.slope,
      ntp: n.slope,
      standard: s.slope,
      fell: Math.max(m.fell, n.fell, s.fell),
      rMup: Math.abs(exponents.mup.r),
      rNtp: Math.abs(exponents.ntp.r - 0.5),
      smallest: m.points[0].y,
      widest: m.points[m.points.length - 1].y,
      ...(await byWords(trial)),
    },
    curves: { µP: m.points, 'neural tangent': n.points, standard: s.points },
  }
}

export const control: study.Control = {
  what: 'the neural tangent parametrization under the name of µP',
  fails: ['mupLow', 'wider'],
  async experiment(trial) {
    const text = await textOf(trial)
    const [small, wide] = [BASE, trial.pick(WIDE, 128)]
    const at = async (width: number) => (await embedded(text, 'ntp', width, trial)).purity
    const { slope } = await byWidth(ntp, trial.seed, trial.pick(WIDTHS, [16, 32]))
    return { numbers: { mupLow: slope, wider: (await at(wide)) - (await at(small)) } }
  },
}

export const plot: study.Plot = { x: 'width', y: 'change of the Gram matrix of the features', logX: true, logY: true }
