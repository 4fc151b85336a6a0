import type { Attrs, OpDef } from '../ops/define.js'
import type { NativeBuffer } from '../addon.js'
import type { DType, TypedArray } from './dtype.js'
import { type Aval, type Shape, showAval } from './shape.js'

let nextId = 0

/** One application of an op. Ids grow, so that their order is a topological one. */
export interface Node {
  readonly id: number
  readonly op: OpDef
  readonly inputs: readonly Tensor[]
  readonly attrs: Attrs
  readonly outputs: readonly Tensor[]
  /** Path of the module that made it, for messages and profiles. */
  readonly scope: string
  /** The user's line that made it, where errors are told (set only while tracing in debug). */
  readonly where?: string
}

/** Native memory that a concrete tensor holds. */
export interface Storage {
  readonly bytes: number
  /** The addon's object. */
  readonly buffer: NativeBuffer
}

/**
 * A handle: a value of a graph that is computed when something reads it, or a concrete native buffer.
 * Ops on tensors build the graph; nothing is computed until `read()` or a compiled function is called.
 */
export class Tensor implements Aval {
  readonly shape: Shape
  readonly dtype: DType
  /** @internal */ node: Node
  /** @internal */ readonly index: number
  /** @internal */ storage: Storage | undefined

  /** @internal */
  constructor(node: Node, index: number, aval: Aval) {
    this.node = node
    this.index = index
    this.shape = aval.shape
    this.dtype = aval.dtype
    this.storage = undefined
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((n, d) => n * d, 1)
  }

  /** The numbers, row-major, computed now if they are not yet; bfloat16 comes as Float32Array. Never blocks the event loop. */
  async read(): Promise<TypedArray> {
    return (await reader([this]))[0]
  }

  /** The one number of a scalar or one-element tensor. */
  async item(): Promise<number> {
    return Number((await this.read())[0])
  }

  toString(): string {
    return `Tensor(${showAval(this)})`
  }

  /** What printing shows: the graph that a tensor hangs on would be pages. */
  toJSON(): string {
    return this.toString()
  }

  /** @internal */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }

  /** Numbers are not there while a graph is traced. */
  [Symbol.toPrimitive](hint: string): string {
    if (hint === 'number') throw numberInTrace(this)
    return this.toString()
  }
}

let numberInTrace: (t: Tensor) => Error = (t) => new TypeError(`${t} is not a number`)
let reader: (tensors: readonly Tensor[]) => Promise<TypedArray[]> = () => {
  throw new Error('the evaluator is not loaded')
}
let watcher: (node: Node, free: boolean) => void = () => {}
let held = 0
let scopePath = ''

/** @internal Set by graph/evaluate.ts, which sits above this file. */
export function setReader(read: typeof reader, error: typeof numberInTrace): void {
  reader = read
  numberInTrace = error
}

/** @internal Set by graph/carried.ts: sees every node, and whether handles may be evaluated now. */
export function setWatcher(watch: typeof watcher): void {
  watcher = watch
}

/** @internal Runs `f`, a transform or a pass that follows nodes from handle to handle: none is evaluated before it is done. */
export function holding<T>(f: () => T): T {
  held++
  try {
    return f()
  } finally {
    held--
  }
}

/** @internal Runs `f` with `name` appended to the module path that its nodes carry. */
export function withScope<T>(name: string, f: () => T): T {
  const before = scopePath
  scopePath = before ? `${before}.${name}` : name
  try {
    return f()
  } finally {
    scopePath = before
  }
}

/** @internal Runs `f` so that the nodes it makes carry the scope of `node`. */
export function withNodeScope<T>(node: Node, f: () => T): T {
  const before = scopePath
  scopePath = node.scope
  try {
    return f()
  } finally {
    scopePath = before
  }
}

/** @internal The id that the next node gets: what was made before a trace has a smaller one. */
export const nextNodeId = (): number => nextId

/** @internal Makes a node and its output handles; the only way that a node comes to be. */
export function makeNode(
  op: OpDef,
  inputs: readonly Tensor[],
  attrs: Attrs,
  avals: readonly Aval[] = op.infer(inputs, attrs),
): Tensor[] {
  const outputs: Tensor[] = []
  const node: Node = { id: nextId++, op, inputs, attrs, outputs, scope: scopePath }
  for (let i = 0; i < avals.length; i++) outputs.push(new Tensor(node, i, avals[i]))
  watcher(node, held === 0)
  return outputs
}
