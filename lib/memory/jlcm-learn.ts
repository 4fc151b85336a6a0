import { arange } from '../ops/assemble.js'
import {
  abs,
  add,
  cast,
  div,
  equal,
  exp,
  greater,
  less,
  mul,
  notEqual,
  sign,
  sqrt,
  square,
  sub,
  where,
} from '../ops/elementwise.js'
import { segmentSum, take } from '../ops/indexing.js'
import { matmul } from '../ops/matmul.js'
import { argmax, max, mean, min, sum } from '../ops/reduce.js'
import { expandDims, full, reshape, zerosLike } from '../ops/shape.js'
import { argsort } from '../ops/sort.js'
import type { Tensor } from '../tensor/tensor.js'
import { compile } from '../transform/compile.js'
import { scan } from '../transform/loop.js'

/** How a mapping is learned. */
export interface Learning {
  readonly steps: number
  readonly mapping: 'proximal' | 'straightThrough'
  readonly mappingLr: number
  readonly codebookLr: number
}

/** A group of rows: weights [rows, n] and the second moments of their inputs, XᵀX / N [n, n]. */
export interface Group {
  readonly weights: Tensor
  readonly moments: Tensor
}

/** What stands for the weights: w[i, j] = codebook[codes[i, j]]. */
export interface Coded {
  /** [codes] */
  readonly codebook: Tensor
  /** int32 [rows, n] */
  readonly codes: Tensor
}

/** Mean squared error of the outputs, |X (Ŵ − W)ᵀ|² / N, and its gradient by each weight. */
export function reconstruction(
  { weights, moments }: Group,
  { codebook, codes }: Coded,
): { loss: Tensor; grad: Tensor } {
  const away = sub(take(codebook, codes), weights)
  const pulled = matmul(away, moments)
  return { loss: sum(mul(away, pulled)), grad: mul(pulled, 2) }
}

/** The gradient of the codebook: of each entry, the sum over the weights that it stands for. */
export const codebookGradient = (grad: Tensor, { codebook, codes }: Coded): Tensor =>
  segmentSum(reshape(grad, [grad.size]), reshape(codes, [codes.size]), codebook.size)

/**
 * What the scores of all codes of each weight go down by, [rows, n, codes]. A score's own gradient (straight through the one-hot choice) is, beside
 * what all have in common, ∂L/∂w · (c_k − c): it grows with the distance. The proximal one keeps its sign and falls with the distance.
 */
export function mappingGradient(grad: Tensor, { codebook, codes }: Coded, mapping: Learning['mapping']): Tensor {
  const distance = sub(codebook, expandDims(take(codebook, codes), -1))
  const along = expandDims(grad, -1)
  if (mapping === 'straightThrough') return mul(along, distance)
  const gap = div(sub(max(codebook), min(codebook)), Math.max(1, codebook.size - 1))
  const near = exp(mul(-1, div(abs(distance), where(greater(gap, 0), gap, 1))))
  return mul(along, mul(sign(distance), near))
}

/** What learning gave. */
export interface Learned extends Coded {
  /** Its loss: the least on the way. */
  readonly loss: Tensor
  /** Changes of a code over all steps, and how many of them went past a neighbour. */
  readonly moves: Tensor
  readonly far: Tensor
}

const BETAS = [0.9, 0.999] as const

/**
 * Learns codebook and mapping of a group together: Adam for the codebook, scores that begin as the one-hot mapping and go down by the gradient over its mean
 * size for the mapping; both rates fall to 0. The best on the way is kept.
 */
export const learnGroup = (learning: Learning) =>
  compile((group: Group, start: Coded): Learned => {
    const { steps, mapping, mappingLr, codebookLr } = learning
    const { dtype } = start.codebook
    const k = start.codebook.size
    const zero = full([], 0, dtype)
    const first = {
      ...start,
      scores: cast(equal(expandDims(start.codes, -1), arange(k, { dtype: 'int32' })), dtype),
      m: zerosLike(start.codebook),
      v: zerosLike(start.codebook),
      best: { ...start, loss: reconstruction(group, start).loss },
      moves: zero,
      far: zero,
    }
    const gap = div(sub(max(start.codebook), min(start.codebook)), Math.max(1, k - 1))
    const { carry } = scan(
      (at: typeof first, t: Tensor) => {
        const { grad } = reconstruction(group, at)
        const fall = sub(1, div(t, steps))
        const raw = mappingGradient(grad, at, mapping)
        const size = mean(abs(raw))
        const scores = sub(at.scores, mul(mul(fall, mappingLr), div(raw, where(greater(size, 0), size, 1))))
        const g = codebookGradient(grad, at)
        const m = add(mul(at.m, BETAS[0]), mul(g, 1 - BETAS[0]))
        const v = add(mul(at.v, BETAS[1]), mul(square(g), 1 - BETAS[1]))
        const n = add(t, 1)
        const correct = (beta: number) => sub(1, exp(mul(n, Math.log(beta))))
        const direction = div(div(m, correct(BETAS[0])), add(sqrt(div(v, correct(BETAS[1]))), 1e-12))
        const codebook = sub(at.codebook, mul(mul(mul(gap, codebookLr), fall), direction))
        const codes = argmax(scores, { axis: -1 })
        const now = { codebook, codes }
        const { loss } = reconstruction(group, now)
        const better = less(loss, at.best.loss)
        const pick = (a: Tensor, b: Tensor) => where(better, a, b)
        // Places among the codes as they lie now.
        const place = argsort(argsort(codebook))
        const jump = abs(sub(take(place, codes), take(place, at.codes)))
        const count = (what: Tensor) => sum(cast(what, dtype))
        return {
          carry: {
            ...now,
            scores,
            m,
            v,
            best: {
              codebook: pick(codebook, at.best.codebook),
              codes: pick(codes, at.best.codes),
              loss: pick(loss, at.best.loss),
            },
            moves: add(at.moves, count(notEqual(jump, 0))),
            far: add(at.far, count(greater(jump, 1))),
          },
          y: null,
        }
      },
      first,
      arange(steps, { dtype }),
    )
    return { ...carry.best, moves: carry.moves, far: carry.far }
  })
