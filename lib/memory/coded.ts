import { add, cast, div, floor, mul, remainder } from '../ops/elementwise.js'
import { take } from '../ops/indexing.js'
import { sum } from '../ops/reduce.js'
import { expandDims, reshape, slice, tensor, transpose } from '../ops/shape.js'
import { type Context, Module, withTensors } from '../nn/module.js'
import { bytesOf, type DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Trainable } from '../train/step-graph.js'

/** A matrix as codes: what stands for a number is the entry of its row's codebook that its code names. */
export interface CodedWeight {
  /** Bits of the codes, uint8 [bits, ⌈numbers / 8⌉]: byte j of row b has bit b of codes 8j to 8j + 7. */
  readonly planes: Tensor
  /** Which codebook a row (an output) has, uint8 [rows]. */
  readonly groups: Tensor
  /** [groups, 2^bits], float: the only part that can be trained. */
  readonly codebooks: Tensor
}

/** How a matrix lies. */
export interface CodedShape {
  readonly shape: readonly [number, number]
  readonly dtype: DType
  /** Whether outputs are its columns. */
  readonly flipped: boolean
}

/** Codes as bit planes. */
export function packed(codes: Uint8Array, bits: number): Tensor {
  const bytes = Math.ceil(codes.length / 8)
  const planes = new Uint8Array(bits * bytes)
  codes.forEach((code, i) => {
    for (let b = 0; b < bits; b++) planes[b * bytes + (i >> 3)] |= ((code >> b) & 1) << (i & 7)
  })
  return tensor(planes, { dtype: 'uint8', shape: [bits, bytes] })
}

/** The matrix that codes stand for. */
export function decoded({ planes, groups, codebooks }: CodedWeight, { shape, dtype, flipped }: CodedShape): Tensor {
  const [rows, width] = flipped ? [shape[1], shape[0]] : shape
  const [bits, bytes] = planes.shape
  const powers = (n: number) => tensor(Float32Array.from({ length: n }, (_, i) => 2 ** i))
  const all = remainder(floor(div(expandDims(cast(planes, 'float32'), -1), powers(8))), 2)
  const flat = slice(reshape(all, [bits, 8 * bytes]), [
    [0, bits],
    [0, rows * width],
  ])
  const codes = reshape(sum(mul(flat, expandDims(powers(bits), -1)), { axis: 0 }), [rows, width])
  const from = mul(cast(groups, 'float32'), 2 ** bits)
  const at = cast(add(codes, expandDims(from, -1)), 'int32')
  const matrix = cast(take(reshape(codebooks, [codebooks.size]), at), dtype)
  return flipped ? transpose(matrix) : matrix
}

/** What compressing a matrix cost, by the mean squared error of its outputs on the calibration data over their mean square. */
export interface CodedReport {
  /** With k-means alone. */
  readonly start: number
  /** After learning. */
  readonly error: number
  /** Changes of a code while learning, and the share of them that went past a neighbouring code. */
  readonly moves: number
  readonly far: number
}

/** A model some of whose matrices are codes and codebooks. */
export class Compressed<M extends Trainable> extends Module implements Trainable {
  /** The compressed matrices by name. */
  readonly weights: Readonly<Record<string, CodedWeight>>
  /** All else of the model; nothing stands in the places of what is compressed. */
  readonly base: M
  /** What compressing cost, by name. */
  readonly report: Readonly<Record<string, CodedReport>>
  private readonly shapes: Readonly<Record<string, CodedShape>>

  /** @internal */
  constructor(base: M, parts: Pick<Compressed<M>, 'weights' | 'report'>, shapes: Readonly<Record<string, CodedShape>>) {
    super()
    this.weights = parts.weights
    this.report = parts.report
    this.shapes = shapes
    const none = Object.keys(shapes).map((name) => [name, tensor(new Float32Array(0))])
    this.base = withTensors(base, Object.fromEntries(none) as Record<string, Tensor>)
  }

  override get buffers(): readonly string[] {
    return ['base']
  }

  /** Bytes of codes, groups and codebooks. */
  get bytes(): number {
    const own = (t: Tensor) => t.size * bytesOf(t.dtype)
    return Object.values(this.weights).reduce((n, w) => n + own(w.planes) + own(w.groups) + own(w.codebooks), 0)
  }

  /** The model with matrices made of the codes. Lazy: within a loss each is there only for as long as it is needed. */
  decoded(): M {
    const all = Object.entries(this.weights).map(([name, w]) => [name, decoded(w, this.shapes[name])])
    return withTensors(this.base, Object.fromEntries(all) as Record<string, Tensor>)
  }

  loss(batch: never, ctx: Context): ReturnType<M['loss']> {
    return this.decoded().loss(batch, ctx) as ReturnType<M['loss']>
  }
}
