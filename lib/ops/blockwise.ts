import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { stack } from './assemble.js'
import { type BatchContext, defineOp, requireDtype } from './define.js'
import { expandDims, slice, squeeze } from './shape.js'

/** Numbers that share a unit. */
export const QUANT_BLOCK = 256

/** @internal The code of 0, and that of the unit itself. */
export const CODES = { zero: { either: 127, positive: 0 }, one: 255 } as const

interface BlockwiseAttrs extends Record<string, boolean> {
  /** Numbers of either sign; else none is negative, and the map has all its values above zero. */
  readonly either: boolean
}

/** @internal Blocks of a tensor of that shape. */
export const quantBlocks = (shape: readonly number[]): number => Math.ceil(sizeOf(shape) / QUANT_BLOCK)

const NO_DERIVATIVE = 'numbers in eight bits are steps, without a slope; use customVjp for a straight-through estimate'

/** Blocks run through a whole tensor, so the examples of a batch are taken one by one. */
function oneByOne(
  row: (inputs: readonly Tensor[], attrs: BlockwiseAttrs) => Tensor[],
  { inputs, batched, size, attrs }: BatchContext<BlockwiseAttrs>,
): Tensor[] {
  const each = Array.from({ length: size }, (_, n) =>
    row(
      inputs.map((t, i) => (batched[i] ? squeeze(slice(t, [[n, n + 1]]), 0) : t)),
      attrs,
    ),
  )
  return each[0].map((first, i) => (size === 1 ? expandDims(first, 0) : stack(each.map((e) => e[i]))))
}

const quantizeRow = defineOp<BlockwiseAttrs>({
  name: 'quantizeBlockwise',
  kind: 'kernel',
  doc: 'Numbers in eight bits: codes, and the largest absolute value of each block of 256, which is their unit.',
  attrs: { either: 'bool' },
  infer: ([x]) => {
    requireDtype('quantizeBlockwise', x, ['float32'])
    return [
      { shape: x.shape, dtype: 'uint8' },
      { shape: [quantBlocks(x.shape)], dtype: 'float32' },
    ]
  },
  vjp: NO_DERIVATIVE,
  batch: (ctx): Tensor[] => oneByOne(quantizeRow, ctx),
  flops: ([x]) => 4 * sizeOf(x.shape),
})

const dequantizeRow = defineOp<BlockwiseAttrs>({
  name: 'dequantizeBlockwise',
  kind: 'kernel',
  doc: 'The numbers that eight-bit codes and the units of their blocks stand for.',
  attrs: { either: 'bool' },
  infer: ([codes, units]) => {
    const who = 'dequantizeBlockwise'
    requireDtype(who, codes, ['uint8'], 'codes')
    requireDtype(who, units, ['float32'], 'units')
    checkUnits(who, codes, units)
    return [{ shape: codes.shape, dtype: 'float32' }]
  },
  vjp: NO_DERIVATIVE,
  batch: (ctx): Tensor[] => oneByOne(dequantizeRow, ctx),
  flops: ([x]) => sizeOf(x.shape),
})

function checkUnits(who: string, codes: Aval, units: Aval): void {
  if (units.shape.length === 1 && units.shape[0] === quantBlocks(codes.shape)) return
  throw new SteepestError('SHAPE', {
    who,
    rule: `there must be a unit for every ${QUANT_BLOCK} codes, counted through the whole tensor`,
    got: `units ${showAval(units)} for codes ${showAval(codes)}`,
  })
}

/** Options of numbers in eight bits. */
export interface BlockwiseOptions {
  /** Numbers of either sign (default); false: none is negative, and they get a map with twice as many values above zero. */
  signed?: boolean
}

/** Numbers in eight bits. */
export interface Blockwise {
  /** uint8, of the shape of the numbers. */
  readonly codes: Tensor
  /** float32 [ceil(size / 256)]: the largest absolute value of each block of consecutive numbers; 1 for a block of zeros. */
  readonly units: Tensor
}

/**
 * Numbers in eight bits, as bitsandbytes keeps the states of optimizers: the code of a number is the place of the nearest of 256 values in
 * [−1, 1] to the number over the unit of its block (of two equally near, the lower). Source: Dettmers et al., arXiv 2110.02861.
 * @param x float32, of any shape
 * @throws SteepestError for another dtype
 */
export function quantizeBlockwise(x: Tensor, options: BlockwiseOptions = {}): Blockwise {
  checkOptions('quantizeBlockwise', options, ['signed'])
  const [codes, units] = quantizeRow([x], { either: options.signed ?? true })
  return { codes, units }
}

/**
 * The numbers that `quantizeBlockwise` kept, within half the distance of two values of the map: float32, of the shape of the codes.
 * @throws SteepestError where codes and units do not belong together
 */
export function dequantizeBlockwise({ codes, units }: Blockwise, options: BlockwiseOptions = {}): Tensor {
  checkOptions('dequantizeBlockwise', options, ['signed'])
  return dequantizeRow([codes, units], { either: options.signed ?? true })[0]
}
