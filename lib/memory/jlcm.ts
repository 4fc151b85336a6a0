import { checkOptions, SteepestError } from '../errors.js'
import { readAll } from '../graph/evaluate.js'
import { Context, namedTensors, withTensors } from '../nn/module.js'
import { eye } from '../ops/assemble.js'
import { add, cast, div, mul } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { sum } from '../ops/reduce.js'
import { swapAxes, tensor } from '../ops/shape.js'
import { nextNodeId, type Tensor } from '../tensor/tensor.js'
import { compile } from '../transform/compile.js'
import { flatten } from '../transform/tree.js'
import type { Trainable } from '../train/step-graph.js'
import { groupRows, kmeans } from './codebook.js'
import { type CodedReport, type CodedShape, type CodedWeight, Compressed, packed } from './coded.js'
import { learnGroup, type Learning, reconstruction } from './jlcm-learn.js'
import { checkChoice, checkRange, checkWhole, type Match, requireTaken, taker } from './options.js'
import { ownNodes, productsOf } from './sampled-rewrite.js'

/** Options of `jlcm`. */
export interface JlcmOptions {
  /** Bits of a code, 1 to 4: 2^bits numbers in a codebook. Default 2. */
  bits?: number
  /** Codebooks of a matrix, at most one per output and 256. Outputs whose weights are spread alike share one. Default 8. */
  groups?: number
  /** Batches as the model's loss takes them, without their labels having to mean anything: what goes into each matrix is measured on them. */
  calibration: Iterable<unknown>
  /** Steps of learning; 0 leaves k-means. Default 600. */
  steps?: number
  /**
   * How the mapping is learned: `proximal` (the paper's) weighs a change of code by how near it is, `straightThrough` by how far. Default
   * `proximal`.
   */
  mapping?: 'proximal' | 'straightThrough'
  /** Mean step of a score, which begin at 0 and 1; 0 learns codebooks only. Falls to 0. Default 0.03. */
  mappingLr?: number
  /** Step of a codebook's numbers, in mean distances between them. Falls to 0. Default 0.05. */
  codebookLr?: number
  /** Which matrices are compressed; by default all but embeddings and heads. */
  match?: Match
}

const WHO = 'memory.jlcm'

/** What goes into each matrix: XᵀX / N, by name, and whether its outputs are its columns. */
interface Measured {
  readonly moments: ReadonlyMap<string, Tensor>
  readonly flipped: ReadonlySet<string>
}

/** Runs the model on the calibration batches. A matrix that it multiplies nothing by (a table) is taken by its weights alone. */
async function measure(model: Trainable, names: ReadonlySet<string>, batches: Iterable<unknown>): Promise<Measured> {
  const flipped = new Set<string>()
  const known = namedTensors(model).parameters
  const wide = (t: Tensor) => cast(t, t.dtype === 'float64' ? 'float64' : 'float32')
  const one = compile((weights: Record<string, Tensor>, batch: unknown): Record<string, Tensor> => {
    const start = nextNodeId()
    const out = withTensors(model, weights).loss(batch as never, new Context())
    const { own } = ownNodes(flatten(out).tensors, start)
    const byTensor = new Map(Object.entries(weights).map(([name, t]) => [t, name]))
    const squares: Record<string, Tensor> = {}
    for (const p of productsOf(own, byTensor)) {
      if (!names.has(p.name)) continue
      const rows = (p.weightAt === 1) === p.flipped
      const operand = wide(p.node.inputs[1 - p.weightAt])
      const x = p.weightAt === 1 ? operand : swapAxes(operand, 0, 1)
      // A matrix that is used both ways round is taken as it is used first.
      if (squares[p.name] && rows === flipped.has(p.name)) continue
      if (!rows) flipped.add(p.name)
      const square = div(matmul(swapAxes(x, 0, 1), x), x.shape[0])
      squares[p.name] = squares[p.name] ? add(squares[p.name], square) : square
    }
    return squares
  })
  let total: Record<string, Tensor> | undefined
  let count = 0
  for (const batch of batches) {
    const now = one(known, batch)
    total = total ? Object.fromEntries(Object.entries(now).map(([k, t]) => [k, add(total![k], t)])) : now
    await readAll(Object.values(total).slice(0, 1))
    count++
  }
  if (!total)
    throw new SteepestError('OPTION', { who: WHO, rule: '`calibration` must give a batch', fix: 'Give an array' })
  const moments = new Map(Object.entries(total).map(([name, t]) => [name, div(t, count)]))
  for (const name of names) {
    const w = known[name]
    if (!moments.has(name)) moments.set(name, eye(w.shape[1], { dtype: w.dtype === 'float64' ? 'float64' : 'float32' }))
  }
  return { moments, flipped }
}

/** One matrix: groups of its outputs, k-means in each, then learning in each. */
async function compress(
  w: Tensor,
  flipped: boolean,
  moments: Tensor,
  { bits, groups, learning }: { bits: number; groups: number; learning: Learning },
): Promise<{ weight: CodedWeight; shape: CodedShape; report: CodedReport }> {
  const own = flipped ? swapAxes(w, 0, 1) : w
  const [rows, width] = own.shape
  const dtype = moments.dtype
  const values = Float64Array.from(await cast(own, dtype).read(), Number)
  const count = Math.min(groups, rows, 256)
  const groupOf = groupRows(values, rows, count)
  const codes = new Uint8Array(rows * width)
  const books = new Float64Array(count * 2 ** bits)
  let [before, after, power, moves, far] = [0, 0, 0, 0, 0]
  const run = learnGroup(learning)
  for (let g = 0; g < count; g++) {
    const members = [...groupOf.keys()].filter((row) => groupOf[row] === g)
    const flat = new Float64Array(members.length * width)
    members.forEach((row, i) => flat.set(values.subarray(row * width, (row + 1) * width), i * width))
    const start = kmeans(flat, 2 ** bits)
    const shape = [members.length, width]
    const group = { weights: tensor(flat, { dtype, shape }), moments }
    const coded = {
      codebook: tensor(start.centers, { dtype }),
      codes: tensor(Int32Array.from(start.codes), { shape }),
    }
    const square = sum(mul(group.weights, matmul(group.weights, moments)))
    const learned = run(group, coded)
    const read = await readAll([
      square,
      reconstruction(group, coded).loss,
      learned.loss,
      learned.moves,
      learned.far,
      learned.codebook,
      learned.codes,
    ])
    const [p, b, a, m, f] = read.slice(0, 5).map((r) => Number(r[0]))
    power += p
    before += b
    after += a
    moves += m
    far += f
    books.set(Float64Array.from(read[5], Number), g * 2 ** bits)
    members.forEach((row, i) => {
      for (let j = 0; j < width; j++) codes[row * width + j] = Number(read[6][i * width + j])
    })
  }
  return {
    weight: {
      planes: packed(codes, bits),
      groups: tensor(groupOf, { dtype: 'uint8' }),
      codebooks: tensor(books, { dtype, shape: [count, 2 ** bits] }),
    },
    shape: { shape: w.shape as [number, number], dtype: w.dtype, flipped },
    report: { start: before / power, error: after / power, moves, far: moves > 0 ? far / moves : 0 },
  }
}

/**
 * The model with its matrices compressed to codes of a few bits. The outputs of a matrix are put into groups whose weights are spread alike, each with a
 * codebook of 2^bits numbers from k-means; then codebooks and mapping are learned together so that the outputs of the matrix on the calibration data
 * stay what they are. What it gives runs, and can be trained on (its codebooks); `decoded()` is the model with plain matrices, `bytes` what the
 * compressed ones are.
 *
 * Every matrix is learned by itself, on the inputs that it has in the model as it was. Rows stay where they are: a byte per row says its group,
 * where the paper sorts rows and turns the next layer.
 * Source: Yvinec et al., ICLR 2024, arXiv 2309.17361; how scores are stepped is not in it and is our choice.
 *
 * @example
 * const small = await memory.jlcm(model, { bits: 2, calibration: batches })
 * console.log(small.bytes, small.report)
 * await models.saveModel('out', small.decoded())
 *
 * @throws SteepestError for a wrong option, without a batch and where no matrix is taken
 */
export async function jlcm<M extends Trainable>(model: M, options: JlcmOptions): Promise<Compressed<M>> {
  checkOptions(WHO, options, ['bits', 'groups', 'calibration', 'steps', 'mapping', 'mappingLr', 'codebookLr', 'match'])
  const { bits = 2, groups = 8, calibration, steps = 600, match } = options
  const { mapping = 'proximal', mappingLr = 0.03, codebookLr = 0.05 } = options
  if (checkWhole(WHO, 'bits', bits) > 4) checkRange(WHO, 'bits', bits, 1, 4)
  if (checkWhole(WHO, 'groups', groups) > 256) checkRange(WHO, 'groups', groups, 1, 256)
  checkWhole(WHO, 'steps', steps, 0)
  checkChoice(WHO, 'mapping', mapping, ['proximal', 'straightThrough'])
  checkRange(WHO, 'mappingLr', mappingLr, 0)
  checkRange(WHO, 'codebookLr', codebookLr, 0)
  const takes = taker(WHO, match)
  const named = Object.entries(namedTensors(model).parameters)
  const taken = named.filter(([name, t]) => t.rank === 2 && takes(name, t))
  requireTaken(WHO, taken, named)
  const { moments, flipped } = await measure(model, new Set(taken.map(([name]) => name)), calibration)
  const weights: Record<string, CodedWeight> = {}
  const shapes: Record<string, CodedShape> = {}
  const report: Record<string, CodedReport> = {}
  const learning = { steps, mapping, mappingLr, codebookLr }
  for (const [name, w] of taken) {
    const done = await compress(w, flipped.has(name), moments.get(name)!, { bits, groups, learning })
    weights[name] = done.weight
    shapes[name] = done.shape
    report[name] = done.report
  }
  return new Compressed(model, { weights, report }, shapes)
}
