import type { Tensor } from '../tensor/tensor.js'
import { flip, reshape, slice, swapAxes, transpose } from './shape.js'
import { pad } from './assemble.js'
import { sum } from './reduce.js'
import { add } from './elementwise.js'
import { matmul } from './matmul.js'
import { windows, type WindowShape } from './windows.js'

/** @internal How a convolution over two axes moves; `padding` is before and after each of them. */
export type ConvGeometry = {
  readonly stride: readonly number[]
  readonly padding: readonly number[]
  readonly dilation: readonly number[]
  readonly groups: number
}

/** @internal The windows of a geometry. */
export const windowShapeOf = (size: readonly number[], { stride, padding, dilation }: ConvGeometry): WindowShape => ({
  size,
  stride,
  dilation,
  padding: [
    [padding[0], padding[1]],
    [padding[2], padding[3]],
  ],
})

const product = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1)

// [N, groups, C/groups · places, windows]
function columns(x: Tensor, size: readonly number[], geometry: ConvGeometry): { seen: Tensor; counts: number[] } {
  const seen = windows('conv', x, windowShapeOf(size, geometry))
  const [n, c] = x.shape
  const counts = seen.shape.slice(3)
  const depth = (c / geometry.groups) * product(size)
  return { seen: reshape(seen, [n, geometry.groups, depth, product(counts)]), counts }
}

/** @internal The gathered windows times the kernel. */
export function defineConv(x: Tensor, w: Tensor, bias: Tensor | undefined, geometry: ConvGeometry): Tensor {
  const [o, ...inner] = w.shape
  const { seen, counts } = columns(x, w.shape.slice(2), geometry)
  const kernel = reshape(w, [geometry.groups, o / geometry.groups, product(inner)])
  const y = reshape(matmul(kernel, seen), [x.shape[0], o, ...counts])
  return bias ? add(y, reshape(bias, [o, 1, 1])) : y
}

// Zeros between the elements of the last two axes, so that a stride of 1 over the result is `stride` over x.
function spread(x: Tensor, stride: readonly number[]): Tensor {
  let y = x
  for (const axis of [2, 3]) {
    const step = stride[axis - 2]
    if (step === 1) continue
    const shape = y.shape
    const inserted = [...shape.slice(0, axis + 1), 1, ...shape.slice(axis + 1)]
    const widths = inserted.map((_, i) => (i === axis + 1 ? [0, step - 1] : [0, 0]))
    const long = reshape(
      pad(reshape(y, inserted), widths),
      shape.map((d, i) => (i === axis ? d * step : d)),
    )
    y = slice(
      long,
      shape.map((_, i) => (i === axis ? [0, (shape[axis] - 1) * step + 1] : null)),
    )
  }
  return y
}

/** @internal A convolution of the gradient, with zeros between its elements, and the kernel turned around. */
export function defineInputBackward(dy: Tensor, w: Tensor, size: readonly number[], geometry: ConvGeometry): Tensor {
  const { stride, padding, dilation, groups } = geometry
  const [o, perGroup, ...kernel] = w.shape
  const grouped = reshape(w, [groups, o / groups, perGroup, ...kernel])
  const turned = reshape(swapAxes(flip(grouped, [3, 4]), 1, 2), [groups * perGroup, o / groups, ...kernel])
  let wide = spread(dy, stride)
  // Where the padding of the forward pass was longer than the kernel's reach, the gradient's ends meet nothing.
  const ends = [0, 1].map((i) => {
    const reach = dilation[i] * (kernel[i] - 1)
    const before = reach - padding[2 * i]
    return [before, size[i] + reach - before - wide.shape[2 + i]] as const
  })
  wide = slice(wide, [
    null,
    null,
    ...ends.map(([before, after], i) => [Math.max(0, -before), wide.shape[2 + i] - Math.max(0, -after)] as const),
  ])
  return defineConv(wide, turned, undefined, {
    stride: [1, 1],
    padding: ends.flatMap((pair) => pair.map((n) => Math.max(0, n))),
    dilation,
    groups,
  })
}

/** @internal What the gradient of the weight is the product of: slopes [groups, O/groups, places] and windows [groups, depth, places]. */
export function weightFactors(
  x: Tensor,
  dy: Tensor,
  kernel: readonly number[],
  geometry: ConvGeometry,
): { slopes: Tensor; seen: Tensor } {
  const { groups } = geometry
  const [n, o, ...counts] = dy.shape
  const places = n * product(counts)
  const { seen } = columns(x, kernel, geometry)
  const grouped = reshape(dy, [n, groups, o / groups, product(counts)])
  return {
    slopes: reshape(transpose(grouped, [1, 2, 0, 3]), [groups, o / groups, places]),
    seen: reshape(transpose(seen, [1, 2, 0, 3]), [groups, seen.shape[2], places]),
  }
}

/** @internal The gathered windows times the gradient, and the gradient's sum per channel. */
export function defineWeightBackward(
  x: Tensor,
  dy: Tensor,
  kernel: readonly number[],
  geometry: ConvGeometry,
): { weight: Tensor; bias: Tensor } {
  const { slopes, seen } = weightFactors(x, dy, kernel, geometry)
  const weight = matmul(slopes, swapAxes(seen, 1, 2))
  return {
    weight: reshape(weight, [dy.shape[1], x.shape[1] / geometry.groups, ...kernel]),
    bias: sum(dy, { axis: [0, 2, 3] }),
  }
}
