import { SteepestError } from '../errors.js'
import { withTensors } from '../nn/module.js'
import { cast, mul, square } from '../ops/elementwise.js'
import { stopGradient } from '../ops/control.js'
import { crossEntropy } from '../ops/loss.js'
import { random } from '../ops/random.js'
import { reshape } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { grad, hvp } from '../transform/grad.js'
import { clipScale, globalNorm } from './clip.js'
import type { Objective, ObjectivePart } from './objective.js'
import type { Moved } from './wrap.js'
import { wideOf } from './wrap.js'

type Named = Record<string, Tensor>

/** What an estimate of the curvature is made of. */
export interface CurvatureRequest {
  readonly objective: Objective<unknown>
  readonly params: unknown
  /** The parameters whose curvature is wanted. */
  readonly moved: readonly Moved[]
  /** int32 [2], of this step. */
  readonly key: Tensor
  /** The step, counted from 1: a float64 scalar. */
  readonly t: Tensor
  /** Largest norm of a gradient that is taken for the estimate. */
  readonly clipNorm?: number
}

/** Estimates the diagonal of the Hessian, by parameter name. */
export interface Curvature {
  readonly name: string
  estimate(request: CurvatureRequest): Named
}

/** How `gaussNewton` draws labels. */
export interface GaussNewtonOptions {
  /** Labels (int32 [rows]) for scores [rows, classes]; by default drawn with the probabilities that the scores give. */
  sample?: (logits: Tensor, key: Tensor) => Tensor
  /** What the square of the gradient is multiplied by; by default the rows of the step, which makes the estimate one of the mean loss. */
  factor?: number
}

/** The objective as a function of the parameters that are moved. */
const own = <R>(f: (params: unknown) => R, { params }: CurvatureRequest): ((named: Named) => R) => {
  return (named) => f(withTensors(params, named))
}
const pick = (moved: readonly Moved[]): Named => Object.fromEntries(moved.map(({ name, p }) => [name, p]))
const each = (named: Named, f: (t: Tensor, name: string) => Tensor): Named =>
  Object.fromEntries(Object.entries(named).map(([k, t]) => [k, f(t, k)]))

/** Apart from what the model draws with the same key. */
const [LABELS, PROBES] = [0x6c61, 0x7072]

/** The scores as [rows, classes]. */
function rowsOf(part: ObjectivePart<unknown>, params: unknown): Tensor {
  const { logits } = part.outputs(params)
  if (!logits)
    throw new SteepestError('ARGUMENT', {
      who: 'optim.gaussNewton',
      rule: 'labels are drawn from the scores of the model, so its loss must give them',
      got: 'no logits',
      fix: 'Return { loss, logits } with logits [..., classes]',
    })
  return reshape(logits, [-1, logits.shape[logits.rank - 1]])
}

/**
 * The Gauss–Newton–Bartlett estimate: the square of the gradient of the mean cross-entropy against labels that are drawn from the model
 * itself, times the number of rows. Its mean is the diagonal of the Gauss–Newton matrix. Source: Liu et al., arXiv 2305.14342, algorithm 2.
 */
export function gaussNewton(options: GaussNewtonOptions = {}): Curvature {
  const draw = options.sample ?? ((logits: Tensor, key: Tensor) => random.categorical(key, logits))
  return {
    name: 'gaussNewton',
    estimate(request) {
      const { objective, moved, key, clipNorm } = request
      let rows = 0
      const grads = objective.total((part) => {
        const loss = own((params) => {
          const logits = rowsOf(part, params)
          rows = Math.round(logits.shape[0] / part.share)
          const labels = draw(stopGradient(logits), random.foldIn(part.key ?? key, LABELS))
          return mul(crossEntropy(logits, labels), part.share)
        }, request)
        return each(grad(loss)(pick(moved)), (g, k) => cast(g, wideOf(moved.find((m) => m.name === k)!.p)))
      })
      const clip = clipNorm === undefined ? undefined : clipScale(globalNorm(Object.values(grads)), clipNorm)
      const factor = options.factor ?? rows
      return each(grads, (g) => mul(square(clip ? mul(g, cast(clip, g.dtype)) : g), factor))
    },
  }
}

/** How `hutchinson` draws its probes. */
export interface HutchinsonOptions {
  /** A probe of this shape, whose numbers are independent, of mean 0 and variance 1; by default normal. */
  draw?: (request: { name: string; shape: readonly number[]; dtype: 'float32' | 'float64'; key: Tensor }) => Tensor
}

/**
 * Hutchinson's estimate of the diagonal of the Hessian: u ⊙ (H u) with a random u, by a product with the Hessian.
 * Source: Hutchinson 1989; Liu et al., arXiv 2305.14342, algorithm 1.
 */
export function hutchinson(options: HutchinsonOptions = {}): Curvature {
  return {
    name: 'hutchinson',
    estimate(request) {
      const { objective, moved, key } = request
      const probes = Object.fromEntries(
        moved.map(({ name, p, site }): [string, Tensor] => {
          const at = { name, shape: p.shape, dtype: wideOf(p), key: random.foldIn(key, PROBES) }
          return [name, options.draw?.(at) ?? random.normal(at.key, p.shape, { dtype: at.dtype, site })]
        }),
      )
      const along = each(pick(moved), (p, k) => cast(probes[k], p.dtype))
      const products = objective.total((part) => {
        const turned = hvp(own(part.loss, request), pick(moved), along)
        return each(turned, (h, k) => cast(h, probes[k].dtype))
      })
      return each(products, (h, k) => mul(h, probes[k]))
    },
  }
}
