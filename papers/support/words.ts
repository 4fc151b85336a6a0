import { crossEntropy, data, eye, nn, optim, random, type study, type Tensor, tensor } from 'steepest'
import { keyOf } from './keys.js'
import { learn, once, tailMean } from './learn.js'

/** Words of a text as numbers, and those that tell where in it they stand. */
export interface Words {
  sequence: Int32Array
  size: number
  /** Words of which four of five stand in the same sixteenth of the text, and that part of each. */
  topical: Int32Array
  parts: Int32Array
}

const [STOP, SIZE, PARTS] = [100, 2000, 16]

/**
 * The text that is on the machine, by default the declarations of TypeScript's platform: its 2000 most frequent words after the first hundred,
 * and of what is left between them nothing.
 * @param limit bytes that are read of it
 */
export async function words(limit = Infinity): Promise<Words> {
  const { tokens, tokenizer } = await data.openText({ tokenizer: 'bytes' })
  const bytes = new Int32Array(Math.min(tokens.length, limit))
  if (tokens instanceof Int32Array) bytes.set(tokens.subarray(0, bytes.length))
  else await tokens.read(0, bytes)
  const all = tokenizer.decode(bytes).match(/[A-Za-z]+/g) ?? []
  const counts = new Map<string, number>()
  for (const word of all) counts.set(word, (counts.get(word) ?? 0) + 1)
  const known = [...counts].sort((a, b) => b[1] - a[1]).slice(STOP, STOP + SIZE)
  const numbers = new Map(known.map(([word], i) => [word, i]))
  const where = known.map(() => new Float64Array(PARTS))
  const sequence: number[] = []
  for (const [i, word] of all.entries()) {
    const number = numbers.get(word)
    if (number === undefined) continue
    sequence.push(number)
    where[number][Math.floor((i * PARTS) / all.length)]++
  }
  const most = where.map((parts) => Math.max(...parts))
  const topical = Int32Array.from(where.keys()).filter((word) => most[word] >= 0.8 * known[word][1])
  return {
    sequence: Int32Array.from(sequence),
    size: known.length,
    topical,
    parts: topical.map((word) => where[word].indexOf(most[word])),
  }
}

/** Words around the one that is told from them. */
const AROUND = [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]

/** Word2vec, the kind that tells a word from the mean of those around it: vectors N(0, 1), and N(0, 1/width) for the words that are told. */
export class Cbow extends nn.Module {
  input: nn.Embedding
  output: nn.Linear

  constructor(size: number, width: number, seed: number) {
    super()
    const keys = new nn.Keys(seed)
    this.input = new nn.Embedding(size, width, { key: keys.next() })
    const init = nn.init.normal(1 / Math.sqrt(width))
    this.output = new nn.Linear(width, size, { bias: false, init, key: keys.next() })
  }
}

/** Width at which all parametrizations are the same. */
export const BASE = 64

/** µP, the neural tangent parametrization, and the standard one whose rate falls as 1/width. */
type Kind = 'mup' | 'ntp' | 'standard'
/** Word2vec by parametrization, and its rates. */
export function cbow(
  kind: Kind,
  size: number,
  width: number,
  seed: number,
): { model: Cbow; groups: optim.ParameterGroup[] } {
  const model = new Cbow(size, width, seed)
  if (kind === 'mup') return nn.mup(model, { base: new Cbow(size, BASE, seed) })
  const slower = kind === 'ntp' ? ['output.weight'] : ['input.weight', 'output.weight']
  return { model, groups: [{ match: slower, lrScale: BASE / width }] }
}

/** Share of the topical words whose nearest other one, by the angle between their vectors, stands in the same part of the text. */
export async function purity({ topical, parts }: Words, vectors: Tensor): Promise<number> {
  const rows = vectors.take(tensor(topical))
  const unit = rows.div(rows.square().sum({ axis: 1, keepDims: true }).sqrt())
  const others = unit.matmul(unit.transpose()).sub(eye(topical.length).mul(4))
  const nearest = await others.argmax({ axis: 1 }).read()
  return parts.filter((part, i) => part === parts[Number(nearest[i])]).length / parts.length
}

/** What word2vec is trained with. */
interface WordRun {
  lr: number
  groups: optim.ParameterGroup[]
  seed: number
  steps: number
  batch: number
}

/** Trains word2vec by SGD, where the other words of a batch are those that a word is told from; its purity, and its loss at first and in the end. */
async function embed(text: Words, model: Cbow, { lr, groups, seed, steps, batch }: WordRun) {
  const { sequence } = text
  const all = tensor(sequence)
  const [offsets, own] = [AROUND, [...Array(batch).keys()]].map((list) => tensor(Int32Array.from(list)))
  const drawn = random.integers(keyOf(seed, 'order'), [steps * batch], 5, sequence.length - 5)
  const places = (await drawn.read()) as Int32Array
  const { params, losses } = await learn({
    params: nn.parameters(model),
    loss: (p: Record<string, Tensor>, at: Tensor) => {
      const { input, output } = nn.withTensors(model, p)
      const mean = input.forward(all.take(at.expandDims(1).add(offsets))).mean({ axis: 1 })
      return crossEntropy(mean.matmul(output.weight.take(all.take(at)).transpose()), own)
    },
    optimizer: optim.sgd({ lr, groups }),
    steps,
    batchOf: (t) => tensor(places.slice((t - 1) * batch, t * batch)),
  })
  return { purity: await purity(text, params['input.weight']), first: losses[0], last: tailMean(losses) }
}

const known = once<Awaited<ReturnType<typeof embed>>>()

/** Word2vec after 3000 batches of 128, at a rate that is chosen at width 64; once for each parametrization, width and seed. */
export function embedded(text: Words, kind: Kind, width: number, { seed, quick, pick }: study.Trial) {
  const run = { lr: 30, seed, steps: pick(3000, 4), batch: pick(128, 16) }
  return known(`${width === BASE ? '' : kind} ${width} ${seed} ${quick}`, () => {
    const { model, groups } = cbow(kind, text.size, width, seed)
    return embed(text, model, { ...run, groups })
  })
}
