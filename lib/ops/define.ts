import { SteepestError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import type { Aval } from '../tensor/shape.js'
import { makeNode, type Tensor } from '../tensor/tensor.js'
import type { Graph } from '../graph/graph.js'

/** How an attribute travels to the native side; a list of strings is an enum. `graph` is a sub-program. */
export type AttrType = 'int' | 'float' | 'bool' | 'ints' | 'floats' | 'dtype' | 'graph' | readonly string[]

export type AttrValue = number | boolean | string | readonly number[] | Graph
export type Attrs = Record<string, AttrValue>

/** What a derivative rule sees. `needs[i]` is false where nobody asks for the gradient of input i. */
export interface VjpContext<A> {
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
  readonly attrs: A
  /** One per output; null where the loss does not depend on it. */
  readonly grads: readonly (Tensor | null)[]
  readonly needs: readonly boolean[]
}

/** What a batching rule sees: batched inputs carry the new axis at 0. */
export interface BatchContext<A> {
  readonly inputs: readonly Tensor[]
  readonly batched: readonly boolean[]
  readonly size: number
  readonly attrs: A
}

/** One row of the table. */
export interface OpDef<A extends Attrs = Attrs> {
  readonly name: string
  /**
   * `elementwise`: a functor of native/math/elementwise.h, fused freely. `view`: moves no numbers (graph/views.ts).
   * `kernel`: one CPU file and one CUDA file. `leaf`: has no inputs to compute from. `composite`: always replaced by its definition.
   */
  readonly kind: 'elementwise' | 'view' | 'kernel' | 'leaf' | 'composite'
  readonly doc: string
  readonly attrs: { readonly [K in keyof A]: AttrType }
  /** Shape and dtype rule; throws a SteepestError. */
  readonly infer: (inputs: readonly Aval[], attrs: A) => Aval[]
  /** Gradients of the inputs, written with ops; a string says why there is none. */
  readonly vjp: ((ctx: VjpContext<A>) => (Tensor | null)[]) | string
  /** Outputs, all batched at axis 0; `define` serves where it is absent. */
  readonly batch?: (ctx: BatchContext<A>) => Tensor[]
  /** The op in primitive ops: takes its place where a transform has no rule for it. */
  readonly define?: (inputs: readonly Tensor[], attrs: A) => Tensor[]
  readonly flops?: (inputs: readonly Aval[], outputs: readonly Aval[], attrs: A) => number
  /** Inputs that the kernel reads with any strides; the others are made contiguous. */
  readonly strided?: readonly number[] | 'all'
  /** Pairs [output, input]: the output may overwrite the input's buffer where that is its last reader. */
  readonly inplace?: readonly (readonly [number, number])[]
  /** Pairs [output, input]: the op is an update; the output replaces the state that the input was. */
  readonly updates?: (attrs: A, inputs: number) => readonly (readonly [number, number])[]
  /** True where its kernel may end a run: at an index out of range, a factorization that fails, a number that is not finite. */
  readonly faults?: boolean
  /** True where equal inputs do not mean equal outputs, or the node must not be merged or dropped. */
  readonly impure?: boolean
}

const table = new Map<string, OpDef>()

/** Adds a row to the table and gives the function that makes its nodes. */
export function defineOp<A extends Attrs = Record<never, never>>(
  def: OpDef<A>,
): (inputs: readonly Tensor[], attrs: A) => Tensor[] {
  if (table.has(def.name)) throw new Error(`op ${def.name} is defined twice`)
  const row = def as unknown as OpDef
  table.set(def.name, row)
  return (inputs, attrs) => makeNode(row, inputs, attrs)
}

/** The whole table, in order of definition. */
export const ops = (): readonly OpDef[] => [...table.values()]

export function opNamed(name: string): OpDef {
  const def = table.get(name)
  if (!def) throw new Error(`no op named ${name}`)
  return def
}

/** Throws unless the input's dtype is one of those listed. */
export function requireDtype(who: string, input: Aval, dtypes: readonly DType[], what = 'input'): void {
  if (!dtypes.includes(input.dtype)) {
    throw new SteepestError('DTYPE', { who, rule: `${what} must be ${dtypes.join(' or ')}`, got: input.dtype })
  }
}

export const FLOATS: readonly DType[] = ['float32', 'bfloat16', 'float64']
export const INTS: readonly DType[] = ['int32', 'uint8']
