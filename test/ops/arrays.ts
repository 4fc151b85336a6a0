import { type Shape, sizeOf } from '../../lib/tensor/shape.js'
import type { Values } from './check.js'

/** Calls `f` with each index of a shape in row-major order. */
export function everyIndex(shape: Shape, f: (index: readonly number[], at: number) => void): void {
  for (let at = 0; at < sizeOf(shape); at++) {
    let rest = at
    const index = new Array<number>(shape.length)
    for (let i = shape.length - 1; i >= 0; i--) {
      index[i] = rest % shape[i]
      rest = Math.floor(rest / shape[i])
    }
    f(index, at)
  }
}

export const at = ({ shape, data }: Values, index: readonly number[]): number =>
  data[index.reduce((k, x, i) => k * shape[i] + x, 0)]

/** The numbers of a shape, each from its index. */
export function fill(shape: Shape, f: (index: readonly number[]) => number): Float64Array {
  const out = new Float64Array(sizeOf(shape))
  everyIndex(shape, (index, k) => {
    out[k] = f(index)
  })
  return out
}

/** `list` with `value` in the place of element `i`. */
export const put = (list: readonly number[], i: number, ...value: number[]): number[] => [
  ...list.slice(0, i),
  ...value,
  ...list.slice(i + 1),
]
