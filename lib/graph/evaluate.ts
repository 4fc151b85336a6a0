import { native, type NativeArena, type NativeBuffer, placeKey } from '../addon.js'
import { SteepestError } from '../errors.js'
import { makeConcrete } from '../ops/shape.js'
import { bytesOf, type TypedArray } from '../tensor/dtype.js'
import { fromBytes } from '../tensor/bytes.js'
import { showAval, sizeOf } from '../tensor/shape.js'
import { holding, setReader, type Storage, type Tensor } from '../tensor/tensor.js'
import { attrsKey } from './attrs.js'
import { carried, drawLine, watchNodes } from './carried.js'
import { build, type Executable, Queue } from './executable.js'
import { type Graph, schedule } from './graph.js'

/** Native memory that a job of some queue may still be writing. */
export interface Pending extends Storage {
  queue?: Queue
  ticket?: number
}

export const pendingOf = (t: Tensor): Pending => t.storage as Pending

const wrap = (buffer: NativeBuffer, queue?: Queue, ticket?: number): Pending => ({
  buffer,
  bytes: buffer.bytes,
  queue,
  ticket,
})

let eager: { queue: Queue; arena: NativeArena; place: string } | undefined
/** The queue and arena of everything that is not a training run of its own. */
export function eagerQueue(): { queue: Queue; arena: NativeArena } {
  const place = placeKey()
  // A queue works with the threads and the device that there were when it was made.
  if (eager?.place !== place) eager = { queue: new Queue(), arena: new (native().Arena)(), place }
  return eager
}

/** Gives the scratch of what was evaluated back to the system; it comes again when it is needed. Nothing may be under way. */
export function releaseScratch(): void {
  eager?.arena.release()
}

/** Waits until what is written into the tensors is there. */
export async function settled(tensors: readonly Tensor[]): Promise<void> {
  for (const t of tensors) {
    const { queue, ticket } = pendingOf(t)
    if (queue && ticket !== undefined) await queue.wait(ticket)
  }
}

/** Programs of equal graphs, by what distinguishes graphs. */
const programs = new Map<string, Executable>()
const MAX_PROGRAMS = 512

/** A text that is equal for graphs that compute the same thing from inputs of the same kinds. */
function graphKey(graph: Graph): string {
  const at = new Map<Tensor, string>()
  graph.inputs.forEach((t, i) => at.set(t, `i${i}`))
  const parts = graph.inputs.map(showAval)
  schedule(graph.outputs).forEach((node, n) => {
    if (node.outputs.every((t) => at.has(t))) return
    node.outputs.forEach((t, i) => at.set(t, `${n}.${i}`))
    parts.push(`${node.op.name}${attrsKey(node.attrs)}(${node.inputs.map((t) => at.get(t)).join(',')})`)
  })
  parts.push(graph.outputs.map((t) => at.get(t)).join(','))
  return parts.join(';')
}

function executableFor(graph: Graph): Executable {
  const composite = schedule(graph.outputs).some((n) => n.op.kind === 'composite')
  if (composite) return build(graph)
  const key = `${placeKey()} ${graphKey(graph)}`
  let known = programs.get(key)
  if (!known) {
    known = build(graph)
    if (programs.size >= MAX_PROGRAMS) programs.delete(programs.keys().next().value!)
    programs.set(key, known)
  }
  return known
}

/** Native memory of a tensor that has some; an error for one that has none. */
function bufferOf(t: Tensor): NativeBuffer {
  if (!t.storage) {
    throw new SteepestError('TRACE', {
      who: 'tensor',
      rule: 'this tensor belongs to a function that is being traced (or was given up to an update) and has no numbers',
      got: showAval(t),
      fix: 'Return it from the traced function, or use where, cond or scan in it',
    })
  }
  return pendingOf(t).buffer
}

/** Runs an executable on concrete tensors; gives native memory for every output. */
export function launch(
  executable: Executable,
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  where = eagerQueue(),
): Pending[] {
  for (const t of inputs) {
    const { queue, ticket } = pendingOf(t)
    if (queue && queue !== where.queue && ticket !== undefined && queue.busy(ticket)) {
      throw new SteepestError('ARGUMENT', {
        who: 'run',
        rule: 'a tensor is still being computed by another run',
        got: showAval(t),
        fix: 'Await it first',
      })
    }
  }
  const { plan } = executable
  const bindings = plan.externals.map((buf, i) =>
    i < inputs.length ? bufferOf(inputs[i]) : new (native().Buffer)(buf.bytes),
  )
  const ticket = where.queue.submit(executable, bindings, where.arena)
  return outputs.map((_, i) => wrap(bindings[plan.outputs[i]], where.queue, ticket))
}

/** Whether native memory is there and no run other than the eager ones may be writing it. */
function ready(leaf: Tensor): boolean {
  if (!leaf.storage) return false
  const { queue, ticket } = pendingOf(leaf)
  return !queue || ticket === undefined || queue === eager?.queue || !queue.busy(ticket)
}

/**
 * Makes tensors concrete: the graph that they hang on is computed (on native threads) and cut. Does not wait for the numbers. What a loop
 * carries on from before the last evaluation is made concrete with them.
 */
export function evaluate(tensors: readonly Tensor[]): void {
  if (tensors.every((t) => t.storage !== undefined)) return
  holding(() => compute([...new Set([...tensors, ...carried(ready)])]))
  drawLine()
}

watchNodes(() => holding(() => compute(carried(ready))))

function compute(tensors: readonly Tensor[]): void {
  const wanted = tensors.filter((t) => t.storage === undefined)
  if (wanted.length === 0) return
  const leaves = new Set<Tensor>()
  for (const node of schedule(wanted)) {
    for (const t of node.inputs) if (t.storage) leaves.add(t)
    if (node.op.name === 'input') bufferOf(node.outputs[0])
  }
  const inputs = [...leaves]
  const graph = { inputs, outputs: wanted }
  const results = launch(executableFor(graph), inputs, wanted)
  wanted.forEach((t, i) => makeConcrete(t, results[i]))
}

/** The numbers of several tensors, computed together. */
export async function readAll(tensors: readonly Tensor[]): Promise<TypedArray[]> {
  evaluate(tensors)
  await settled(tensors)
  return tensors.map((t) => {
    const { target, values } = fromBytes(sizeOf(t.shape), t.dtype)
    if (sizeOf(t.shape) * bytesOf(t.dtype) > 0) pendingOf(t).buffer.read(target)
    return values()
  })
}

setReader(readAll, (t) => {
  return new SteepestError('TRACE', {
    who: 'tensor',
    rule: 'a tensor is not a number in JavaScript',
    got: showAval(t),
    fix: 'Use ops on it, or await t.item() outside of traced functions (inside: where, cond, scan or an output)',
  })
})
