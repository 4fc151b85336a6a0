import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { describe, test } from 'vitest'
import type { Tensor } from '../../lib/tensor/tensor.js'
import type { DType } from '../../lib/tensor/dtype.js'
import type { Shape } from '../../lib/tensor/shape.js'
import { checkDerivatives, checkNoDerivative, checkRows } from './check-derivatives.js'
import { checkKernels } from './check-kernels.js'
import { checkMapped } from './check-vmap.js'
import { checkValues } from './check-values.js'

/** An input of a case: its shape, and how its numbers come to be. */
export interface Arg {
  readonly shape: Shape
  /** `float` is each of the dtypes that a case runs in. */
  readonly dtype: 'float' | DType
  /** Element i of the input, from noise in (−1, 1). */
  readonly value: (noise: number, i: number) => number
  /** Not differentiated, though float. */
  readonly constant?: boolean
  /** The same for all under vmap. */
  readonly shared?: boolean
}

/** Floats in (low, high). */
export const arg = (
  shape: Shape,
  { low = -1, high = 1, ...rest }: { low?: number; high?: number; constant?: boolean; shared?: boolean } = {},
): Arg => ({
  shape,
  dtype: 'float',
  value: (noise) => low + ((noise + 1) / 2) * (high - low),
  ...rest,
})

/** Whole numbers in [low, high). */
export const ints = (shape: Shape, low: number, high: number, rest: { dtype?: DType; shared?: boolean } = {}): Arg => ({
  shape,
  dtype: 'int32',
  value: (noise) => Math.min(high - 1, Math.floor(low + ((noise + 1) / 2) * (high - low))),
  ...rest,
})

/** The numbers themselves, as often as needed. */
export const given = (
  shape: Shape,
  numbers: readonly number[],
  rest: { dtype?: Arg['dtype']; constant?: boolean; shared?: boolean } = {},
): Arg => ({
  shape,
  dtype: 'float',
  value: (_, i) => numbers[i % numbers.length],
  ...rest,
})

/** Numbers of an input, row-major, in the dtype's precision. */
export interface Values {
  readonly shape: Shape
  readonly data: ArrayLike<number>
}

export interface OpCase {
  /** Rows of the table that this is a case of: each is in the graph of `f`, of its gradient or of the gradient's gradient (checked). */
  readonly ops: readonly string[]
  /** Distinguishes the cases of a row. */
  readonly name?: string
  readonly f: (...inputs: Tensor[]) => Tensor | readonly Tensor[]
  /** Argument lists that everything is checked at: odd, empty and size-one shapes, broadcasting. Small. */
  readonly at: readonly (readonly Arg[])[]
  /** Argument lists at which only float32 and bfloat16 are compared with float64, and threads and levels with each other: over several tiles. */
  readonly large?: readonly (readonly Arg[])[]
  /** What the outputs should hold, by plain loops in JavaScript; left out where the family's own test has the numbers. */
  readonly expected?: (...inputs: Values[]) => ArrayLike<number> | readonly ArrayLike<number>[]
  /** `none`: asking for a gradient is an error at trace time. `first`: no second one. Default: both. */
  readonly derivatives?: 'both' | 'first' | 'none'
  /** False where vmap is an error. */
  readonly vmap?: boolean
  /** Float dtypes that the kernel takes beside float64; both by default. */
  readonly dtypes?: readonly ('float32' | 'bfloat16')[]
  /** Largest error relative to the largest number of an output (and to 1). Defaults: 1e-12, 4e-6, 2e-2. */
  readonly bounds?: { readonly float64?: number; readonly float32?: number; readonly bfloat16?: number }
  /** Levels differ in their bits (products of a library); threads never may. */
  readonly perLevel?: boolean
}

const titleOf = (c: OpCase): string => (c.name ? `${c.ops[0]}, ${c.name}` : c.ops[0])
const showArgs = (args: readonly Arg[]): string => args.map((a) => `[${a.shape.join(', ')}]`).join(' ')

/** Tests of all cases of a family: called once, from the family's own test file. */
export function checkCases(cases: readonly OpCase[]): void {
  describe.each(cases.map((c) => [titleOf(c), c] as const))('%s', (_, c) => {
    test('uses its rows', () => checkRows(c, c.at[0]))
    const { expected } = c
    if (expected) {
      test.each(c.at.map((args) => [showArgs(args), args] as const))('numbers at %s', (_, args) =>
        checkValues(c, expected, args),
      )
    }
    if (c.derivatives === 'none') {
      test('has no derivative, and says so', () => checkNoDerivative(c, c.at[0]))
    } else {
      const smooth = c.at.filter((args) => args.some((a) => a.dtype === 'float' && !a.constant))
      test.each(smooth.map((args) => [showArgs(args), args] as const))('derivatives at %s', (_, args) =>
        checkDerivatives(c, args),
      )
    }
    if (c.vmap !== false)
      test.each(c.at.map((args) => [showArgs(args), args] as const))('vmap at %s', (_, args) => checkMapped(c, args))
    const kernels = [...c.at, ...(c.large ?? [])]
    test.each(kernels.map((args) => [showArgs(args), args] as const))('dtypes, levels and threads at %s', (_, args) =>
      checkKernels(c, args),
    )
  })
}

/** The families' cases: every file of `cases/` exports `cases`. */
export async function allCases(): Promise<{ family: string; cases: readonly OpCase[] }[]> {
  const folder = join(dirname(fileURLToPath(import.meta.url)), 'cases')
  return Promise.all(
    readdirSync(folder)
      .filter((f) => f.endsWith('.ts'))
      .sort()
      .map(async (f) => ({
        family: f.replace(/\.ts$/, ''),
        cases: ((await import(pathToFileURL(join(folder, f)).href)) as { cases: OpCase[] }).cases,
      })),
  )
}
