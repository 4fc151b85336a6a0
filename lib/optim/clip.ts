import { checkOptions, SteepestError } from '../errors.js'
import { abs, add, cast, div, maximum, minimum, mul, pow, where } from '../ops/elementwise.js'
import { sum } from '../ops/reduce.js'
import { globalNorm as norms } from '../ops/update.js'
import type { Tensor } from '../tensor/tensor.js'
import { flatten } from '../transform/tree.js'
import { checkPositive } from './options.js'
import type { ClipOptions } from './optimizer.js'

const KINDS = new Map([
  [1, 'l1'],
  [2, 'l2'],
  [Infinity, 'max'],
] as const)

/**
 * The norm of all numbers of the tensors together: (Σ|x|^order)^(1/order), the largest |x| for `Infinity`. A scalar, float64 where any of
 * them is float64, else float32. Never overflows where the norm itself does not.
 * @param options `order` in (0, ∞], default 2
 */
export function globalNorm(tensors: readonly Tensor[], { order = 2 }: { order?: number } = {}): Tensor {
  checkPositive('optim.globalNorm', 'order', order)
  const kind = KINDS.get(order as 1)
  if (kind) return norms(tensors, { kind })
  const top = norms(tensors, { kind: 'max' })
  const unit = where(top, top, 1)
  const parts = tensors.map((t) => sum(pow(div(abs(cast(t, top.dtype)), unit), order)))
  return mul(top, pow(parts.reduce(add), 1 / order))
}

/** Throws unless one way of clipping is asked for. */
export function checkClip(who: string, clip: ClipOptions): ClipOptions {
  checkOptions(`${who}: clip`, clip, ['globalNorm', 'norm', 'value', 'order', 'eps'])
  const ways = (['globalNorm', 'norm', 'value'] as const).filter((way) => clip[way] !== undefined)
  if (ways.length !== 1) {
    throw new SteepestError('OPTION', {
      who: `${who}: clip`,
      rule: 'say one of `globalNorm`, `norm` and `value`',
      got: ways.join(' and ') || 'none',
    })
  }
  checkPositive(`${who}: clip`, ways[0], clip[ways[0]])
  if (clip.order !== undefined) checkPositive(`${who}: clip`, 'order', clip.order)
  if (clip.eps !== undefined) checkPositive(`${who}: clip`, 'eps', clip.eps)
  return clip
}

/** min(1, max / (norm + eps)): what gradients of that norm are multiplied by, a scalar of the norm's dtype. */
export const clipScale = (norm: Tensor, max: number, eps = 1e-6): Tensor => minimum(div(max, add(norm, eps)), 1)

const times = (a: Tensor, b: Tensor | undefined): Tensor => (b ? mul(a, cast(b, a.dtype)) : a)

export interface Clipped {
  grads: Record<string, Tensor>
  /** What each gradient is still to be multiplied by: done in the update itself, at no cost. */
  scale: (name: string) => Tensor | undefined
  norm?: Tensor
}

/** Clips gradients that are to be multiplied by `scale` first. */
export function clipped(
  grads: Record<string, Tensor>,
  clip: ClipOptions | undefined,
  scale: Tensor | undefined,
): Clipped {
  const order = clip?.order ?? 2
  if (clip?.globalNorm !== undefined) {
    const norm = times(globalNorm(Object.values(grads), { order }), scale)
    const factor = times(clipScale(norm, clip.globalNorm, clip.eps), scale)
    return { grads, scale: () => factor, norm }
  }
  if (clip?.norm !== undefined) {
    const max = clip.norm
    const factors = Object.fromEntries(
      Object.entries(grads).map(([name, g]) => [
        name,
        times(clipScale(times(globalNorm([g], { order }), scale), max, clip.eps), scale),
      ]),
    )
    return { grads, scale: (name) => factors[name], norm: undefined }
  }
  if (clip?.value !== undefined) {
    const max = clip.value
    return {
      grads: Object.fromEntries(
        Object.entries(grads).map(([name, g]) => [name, minimum(maximum(times(g, scale), -max), max)]),
      ),
      scale: () => undefined,
    }
  }
  return { grads, scale: () => scale }
}

/** The scale of gradients that are to be multiplied by `scale`, and then by what their norm says. */
export function normalized(
  grads: Record<string, Tensor>,
  scale: Tensor | undefined,
  factor: (norm: Tensor) => Tensor,
): Tensor {
  return times(factor(times(globalNorm(Object.values(grads)), scale)), scale)
}

/**
 * Gradients multiplied by min(1, max / (norm + 1e-6)), where `norm` is that of all of them together, and that norm. An optimizer's option
 * `clip` does the same within the update, without a pass over memory.
 */
export function clipByGlobalNorm<T>(
  grads: T,
  max: number,
  { order = 2 }: { order?: number } = {},
): { grads: T; norm: Tensor } {
  checkPositive('optim.clipByGlobalNorm', 'max', max)
  const flat = flatten(grads)
  const norm = globalNorm(flat.tensors, { order })
  const factor = clipScale(norm, max)
  return { grads: flat.unflatten(flat.tensors.map((g) => times(g, factor))), norm }
}
