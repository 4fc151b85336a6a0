import { models, nn, optim, random, type study, type Tensor, tensor } from 'steepest'
import { keyOf } from './keys.js'
import { learn } from './learn.js'

/** Letters of a made-up language as numbers; 0 is the space between words. */
export interface Text {
  train: Int32Array
  held: Int32Array
}

const [LETTERS, WORDS, FOLLOWERS, LONGEST] = [27, 300, 5, 7]

/**
 * Text of 300 random words of 2 to 7 letters, the k-th as frequent as 1/k: in four of five cases a word is one of the five that may follow the
 * one before it, else any.
 */
export async function language(seed: number, length: number): Promise<Text> {
  const draw = async (i: number, n: number) =>
    await random.uniform(random.foldIn(keyOf(seed, 'data'), i), [n], { dtype: 'float64' }).read()
  const zipf = (u: number) => Math.floor(Math.exp(u * Math.log(WORDS + 1))) - 1
  const lengths = await draw(0, WORDS)
  const spelling = await draw(1, WORDS * LONGEST)
  const followers = await draw(2, WORDS * FOLLOWERS)
  const next = await draw(3, length)
  const letters = new Int32Array(length)
  for (let at = 0, word = 0, n = 0; at < length; n++) {
    const size = 2 + Math.floor(Number(lengths[word]) * (LONGEST - 1))
    for (let i = 0; i < size && at < length; i++) {
      letters[at++] = 1 + Math.floor(Number(spelling[word * LONGEST + i]) * (LETTERS - 1))
    }
    at++
    const u = Number(next[n])
    const follows = word * FOLLOWERS + Math.floor((u / 0.8) * FOLLOWERS)
    word = zipf(u < 0.8 ? Number(followers[follows]) : (u - 0.8) / 0.2)
  }
  const cut = Math.floor(0.95 * length)
  return { train: letters.subarray(0, cut), held: letters.subarray(cut) }
}

/** How a language model is trained. */
export interface LanguageRun {
  seed: number
  steps: number
  /** Rows of a step. */
  batch: number
  /** Letters of a row. */
  time: number
  /** Steps between two looks at held-out text; by default it is looked at once, at the end. */
  every?: number
  /** Sees the state of the optimizer at every look. */
  onLook?: (state: optim.OptimizerState) => Promise<void>
}

/** Letters [n, time] from some places of a text, and those that come next. */
function rowsAt(text: Int32Array, places: ArrayLike<number>, time: number): { inputIds: Tensor; targets: Tensor } {
  const shape = [places.length, time]
  const at = (shift: number) => {
    const rows = new Int32Array(places.length * time)
    for (let i = 0; i < places.length; i++)
      rows.set(text.subarray(places[i] + shift, places[i] + shift + time), i * time)
    return tensor(rows, { shape })
  }
  return { inputIds: at(0), targets: at(1) }
}

/** A GPT-2 of two layers of width 64: some 100,000 weights. */
export const languageModel = (seed: number, time: number): models.GPT2 =>
  new models.GPT2({ vocabSize: LETTERS, context: time, layers: 2, heads: 4, width: 64, seed })

/** Trains a small GPT-2. @returns the loss on 256 held-out rows, in nats per letter, by step; the last is that after training */
export async function trainLanguage(
  optimizer: optim.Optimizer,
  text: Text,
  { seed, steps, batch, time, every = steps, onLook }: LanguageRun,
): Promise<study.CurvePoint[]> {
  const model = languageModel(seed, time)
  const places = async (key: Tensor, n: number, { length }: Int32Array) =>
    (await random.integers(key, [n], 0, length - time - 1).read()) as Int32Array
  const order = await places(keyOf(seed, 'order'), steps * batch, text.train)
  const held = rowsAt(text.held, await places(keyOf(seed, 'other'), 256, text.held), time)
  const ctx = new nn.Context()
  type Weights = Record<string, Tensor>
  const outputs = (p: Weights, rows: typeof held) => nn.withTensors(model, p).loss(rows, ctx)
  const points: study.CurvePoint[] = []
  await learn({
    params: nn.parameters(model),
    loss: outputs,
    optimizer,
    steps,
    batchOf: (t) => rowsAt(text.train, order.subarray((t - 1) * batch, t * batch), time),
    seed,
    async onStep(t, p, state) {
      if (t % every !== 0 && t !== steps) return
      points.push({ x: t, y: await outputs(p, held).loss.item() })
      await onLook?.(state)
    },
  })
  return points
}

/** An optimizer that is compared with others, and the highest rate that it has. */
export interface Contender {
  make: (lr: optim.LearningRate) => optim.Optimizer
  rate: number
}

/** Held-out losses by step: 2400 steps of 16 rows of 32 letters, with a short rise of the rate and a cosine to 0. */
export async function contest(
  { make, rate }: Contender,
  { seed, pick }: study.Trial,
  onLook?: LanguageRun['onLook'],
): Promise<study.CurvePoint[]> {
  const steps = pick(2400, 4)
  const lr = optim.schedule({ kind: 'cosine', lr: rate, steps, warmup: Math.round(steps / 20) })
  const text = await language(seed, pick(400_000, 4000))
  return trainLanguage(make(lr), text, { seed, steps, batch: 16, time: 32, every: Math.ceil(steps / 24), onLook })
}

export const lastOf = (points: readonly study.CurvePoint[]): number => points[points.length - 1].y
