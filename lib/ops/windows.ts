import { SteepestError } from '../errors.js'
import { type Shape, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { pad, stack } from './assemble.js'
import { slice } from './shape.js'

/** One number for every spatial axis, or one for all. */
export type PerAxis = number | readonly number[]
/** Places around the spatial axes: as many before as after each, or a pair `[before, after]` for each. */
export type Padding = PerAxis | readonly (number | readonly [before: number, after: number])[] | 'same' | 'valid'

/** How windows lie over the last axes. */
export interface WindowShape {
  readonly size: readonly number[]
  readonly stride: readonly number[]
  readonly dilation: readonly number[]
  readonly padding: readonly (readonly [before: number, after: number])[]
}

/** @internal One whole number per axis. */
export function perAxis(who: string, name: string, value: PerAxis, axes: number, least: number): number[] {
  const list = typeof value === 'number' ? new Array<number>(axes).fill(value) : [...value]
  if (list.length !== axes || list.some((v) => !Number.isSafeInteger(v) || v < least)) {
    throw new SteepestError('OPTION', {
      who,
      rule: `\`${name}\` must be a whole number of ${least} or more, or ${axes} of them`,
      got: list.join(', '),
    })
  }
  return list
}

/** Fills in what is left out; `same` pads so that a stride of 1 keeps the lengths. */
export function windowShape(
  who: string,
  size: PerAxis,
  axes: number,
  { stride = 1, padding = 0, dilation = 1 }: { stride?: PerAxis; padding?: Padding; dilation?: PerAxis },
): WindowShape {
  const sizes = perAxis(who, 'size', size, axes, 1)
  const dilations = perAxis(who, 'dilation', dilation, axes, 1)
  const around = (): (readonly [number, number])[] => {
    if (padding === 'valid') return sizes.map(() => [0, 0])
    if (padding === 'same') {
      return sizes.map((k, i) => {
        const total = dilations[i] * (k - 1)
        return [total >> 1, total - (total >> 1)]
      })
    }
    const pairs = (typeof padding === 'number' ? new Array<number>(axes).fill(padding) : padding).map((p) =>
      typeof p === 'number' ? ([p, p] as const) : p,
    )
    if (
      pairs.length !== axes ||
      pairs.some((p) => p.length !== 2 || p.some((n) => !Number.isSafeInteger(n) || n < 0))
    ) {
      throw new SteepestError('OPTION', {
        who,
        rule: `\`padding\` must be a whole number of 0 or more, ${axes} of them or of pairs [before, after], 'same' or 'valid'`,
        got: JSON.stringify(padding),
      })
    }
    return pairs
  }
  return { size: sizes, stride: perAxis(who, 'stride', stride, axes, 1), dilation: dilations, padding: around() }
}

/** Numbers of windows along each of the last axes; throws where not one fits. */
export function windowCounts(who: string, shape: Shape, { size, stride, dilation, padding }: WindowShape): number[] {
  const first = shape.length - size.length
  return size.map((k, i) => {
    const length = shape[first + i] + padding[i][0] + padding[i][1]
    const reach = dilation[i] * (k - 1) + 1
    if (length < reach) {
      throw new SteepestError('SHAPE', {
        who,
        rule: 'the window must fit into the padded input',
        got: `a window over ${reach} places for ${showShape(shape)}`,
      })
    }
    return Math.floor((length - reach) / stride[i]) + 1
  })
}

/**
 * The windows of `x` over its last axes: [..., places in a window, ...counts]. Each place of a window is a strided view.
 *
 * @param value what stands around `x`
 */
export function windows(who: string, x: Tensor, shape: WindowShape, value = 0): Tensor {
  const { size, stride, dilation, padding } = shape
  const counts = windowCounts(who, x.shape, shape)
  const first = x.rank - size.length
  const outer = new Array<null>(first).fill(null)
  const around = [...outer.map(() => [0, 0]), ...padding]
  const padded = padding.some(([a, b]) => a + b > 0) ? pad(x, around, { value }) : x
  const places = size.reduce((n, k) => n * k, 1)
  const parts = Array.from({ length: places }, (_, place) => {
    let rest = place
    const at = new Array<number>(size.length)
    for (let i = size.length - 1; i >= 0; i--) {
      at[i] = rest % size[i]
      rest = Math.floor(rest / size[i])
    }
    const ranges = at.map(
      (v, i) => [v * dilation[i], v * dilation[i] + (counts[i] - 1) * stride[i] + 1, stride[i]] as const,
    )
    return slice(padded, [...outer, ...ranges])
  })
  return stack(parts, { axis: first })
}
