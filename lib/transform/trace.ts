import { SteepestError } from '../errors.js'
import { type Graph, schedule } from '../graph/graph.js'
import { rebuild } from '../graph/rebuild.js'
import { placeholder } from '../ops/shape.js'
import { holding, nextNodeId, type Tensor } from '../tensor/tensor.js'
import { flatten, type Flat } from './tree.js'

let depth = 0

/** Whether a function is being traced now, so that numbers cannot be read. */
export const tracing = (): boolean => depth > 0

/** Runs `f` as part of a trace. */
export function inTrace<T>(f: () => T): T {
  depth++
  try {
    return holding(f)
  } finally {
    depth--
  }
}

/** A user's function as a graph of its own. */
export interface Traced<R> {
  /** Its inputs are the tensors of the arguments, then the captures. */
  readonly graph: Graph
  /** Tensors from outside that the function used. */
  readonly captures: readonly Tensor[]
  readonly out: Flat<R>
}

function requireSync(who: string, out: unknown): void {
  if (out instanceof Promise) {
    throw new SteepestError('TRACE', {
      who,
      rule: 'a traced function must not be async',
      fix: 'Read numbers outside of it; inside, use where, scan or an output',
    })
  }
}

/** Traces `f` on placeholders in the places of the tensors of `args`. What it used from outside becomes further inputs. */
export function trace<A extends readonly unknown[], R>(
  who: string,
  f: (...args: A) => R,
  args: A,
  avals?: readonly { shape: readonly number[]; dtype: Tensor['dtype'] }[],
): Traced<R> {
  return holding(() => traceHeld(who, f, args, avals))
}

function traceHeld<A extends readonly unknown[], R>(
  who: string,
  f: (...args: A) => R,
  args: A,
  avals?: readonly { shape: readonly number[]; dtype: Tensor['dtype'] }[],
): Traced<R> {
  const flat = flatten(args)
  const start = nextNodeId()
  const inputs = (avals ?? flat.tensors).map((a) => placeholder(a))
  const result = inTrace(() => f(...(flat.unflatten(inputs) as unknown as A)))
  requireSync(who, result)
  const out = flatten(result)
  const graph = { inputs, outputs: out.tensors }
  const { closed, captures } = closeOver(graph, start)
  return { graph: closed, captures, out }
}

/** Turns what a graph uses from before `start`, and native memory, into inputs. */
export function closeOver(graph: Graph, start: number): { closed: Graph; captures: Tensor[] } {
  const own = new Set(graph.inputs)
  const map = new Map<Tensor, Tensor>()
  const captures: Tensor[] = []
  const capture = (t: Tensor) => {
    if (map.has(t) || own.has(t)) return
    const outside = t.storage !== undefined || (t.node.id < start && t.node.op.name !== 'constant')
    if (!outside) return
    map.set(t, placeholder(t))
    captures.push(t)
  }
  for (const t of graph.outputs) capture(t)
  // Only nodes of this trace are looked into: what lies before `start` is reached through the captures.
  for (const node of scheduleFrom(graph.outputs, start)) for (const t of node.inputs) capture(t)
  const added = captures.map((t) => map.get(t)!)
  const body = rebuildWithin(graph, map)
  return { closed: { inputs: [...graph.inputs, ...added], outputs: body.outputs }, captures }
}

function scheduleFrom(outputs: readonly Tensor[], start: number) {
  const inside = outputs.filter((t) => t.node.id >= start && t.storage === undefined)
  return schedule(inside).filter((n) => n.id >= start)
}

const rebuildWithin = (graph: Graph, map: Map<Tensor, Tensor>): Graph =>
  map.size === 0
    ? graph
    : rebuild({ inputs: graph.inputs, outputs: graph.outputs.map((t) => map.get(t) ?? t) }, () => undefined, map)
