import { stridesOf, type Shape } from '../tensor/shape.js'
import type { Node } from '../tensor/tensor.js'

/** Where the elements of a value lie within a buffer, in elements. */
export interface Layout {
  readonly offset: number
  readonly strides: readonly number[]
}

export const isContiguous = (shape: Shape, strides: readonly number[]): boolean => {
  let expect = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expect) return false
    expect *= shape[i]
  }
  return true
}

/** The strides of the same elements under another shape, or null where only a copy has them. */
function reshapeStrides(from: Shape, strides: readonly number[], to: Shape): number[] | null {
  if (isContiguous(from, strides)) return stridesOf(to)
  const shape = from.filter((d) => d !== 1)
  const step = strides.filter((_, i) => from[i] !== 1)
  const out = new Array<number>(to.length).fill(1)
  let i = 0
  let j = 0
  while (i < shape.length) {
    // The smallest group of axes on both sides with one product.
    let a = shape[i]
    let b = 1
    const i0 = i++
    const j0 = j
    while (a !== b) {
      if (b < a) b *= to[j++]
      else a *= shape[i++]
    }
    for (let k = i0; k + 1 < i; k++) if (step[k] !== step[k + 1] * shape[k + 1]) return null
    let s = step[i - 1]
    for (let k = j - 1; k >= j0; k--) {
      out[k] = s
      s *= to[k]
    }
  }
  return out
}

/** The layout of a view's output, given that of its input; null where the view needs a contiguous input. */
export function viewLayout(node: Node, input: Layout): Layout | null {
  const shape = node.inputs[0].shape
  const out = node.outputs[0].shape
  const { offset, strides } = input
  switch (node.op.name) {
    case 'alias':
    case 'stopGradient':
      return input
    case 'reshape': {
      if (out.includes(0)) return { offset, strides: stridesOf(out) }
      const moved = reshapeStrides(shape, strides, out)
      return moved && { offset, strides: moved }
    }
    case 'transpose':
      return { offset, strides: (node.attrs.axes as number[]).map((a) => strides[a]) }
    case 'slice': {
      const starts = node.attrs.starts as number[]
      const steps = node.attrs.steps as number[]
      if (out.includes(0)) return { offset, strides: stridesOf(out) }
      return {
        offset: starts.reduce((at, s, i) => at + s * strides[i], offset),
        strides: strides.map((s, i) => s * steps[i]),
      }
    }
    case 'flip': {
      if (out.includes(0)) return input
      const axes = node.attrs.axes as number[]
      return {
        offset: axes.reduce((at, a) => at + (shape[a] - 1) * strides[a], offset),
        strides: strides.map((s, i) => (axes.includes(i) ? -s : s)),
      }
    }
    case 'broadcastTo': {
      const lead = out.length - shape.length
      return {
        offset,
        strides: out.map((d, i) => (i < lead || (shape[i - lead] === 1 && d !== 1) ? 0 : strides[i - lead])),
      }
    }
    default:
      throw new Error(`view ${node.op.name} has no layout rule`)
  }
}
