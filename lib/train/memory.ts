import { flopsOf } from '../graph/cost.js'
import { type Graph, schedule } from '../graph/graph.js'
import { type Buf, finalBuf, type Instruction, type Lowered } from '../graph/instruction.js'
import type { Plan as GraphPlan } from '../graph/place.js'
import type { Tensor } from '../tensor/tensor.js'
import type { MemoryByHolder } from './events.js'
import { avalBytes, type Batch } from './host.js'
import type { Trainer } from './trainer.js'

const bytes = (tensors: Readonly<Record<string, Tensor>>): number =>
  Object.values(tensors).reduce((n, t) => n + avalBytes(t), 0)

/** Floating-point operations of a planned program, from the costs in the op table; what is computed again counts once. */
export function planFlops(plan: GraphPlan): number {
  return plan.instructions.reduce((n, i) => (i.again ? n : n + flopsOf(i)), 0)
}

/** What lives in the arena at its fullest moment. */
export function liveAtPeak(plan: GraphPlan): Buf[] {
  const live = plan.bufs.filter((b) => b.space === 'arena' && !b.into && b.last >= 0 && b.bytes > 0)
  let peak = { at: 0, bytes: -1 }
  const change = new Float64Array(plan.instructions.length + 1)
  for (const b of live) {
    change[b.first] += b.bytes
    change[b.last + 1] -= b.bytes
  }
  let now = 0
  change.forEach((d, at) => {
    now += d
    if (now > peak.bytes) peak = { at, bytes: now }
  })
  return live.filter((b) => b.first <= peak.at && b.last >= peak.at)
}

export const largestPlan = (plans: readonly GraphPlan[]): GraphPlan =>
  plans.reduce((a, b) => (b.arenaBytes > a.arenaBytes ? b : a))

/** What holds the arena at its fullest moment: gradients (what updates read), scratch, and the rest. */
function arenaAtPeak(plan: GraphPlan): { gradients: number; workspace: number; activations: number } {
  const gradients = new Set(
    plan.instructions.filter((i) => i.op.updates).flatMap((i) => i.inputs.slice(1, 2).map((o) => finalBuf(o.buf))),
  )
  const out = { gradients: 0, workspace: 0, activations: 0 }
  for (const b of liveAtPeak(plan)) {
    if (gradients.has(b)) out.gradients += b.bytes
    else if (b.label.startsWith('workspace')) out.workspace += b.bytes
    else out.activations += b.bytes
  }
  // Gaps between buffers are nobody's: they are counted with what fills the arena.
  out.activations += plan.arenaBytes - out.gradients - out.workspace - out.activations
  return out
}

/** Threads' stacks that are touched, the staging of batches and the JavaScript side of a run, as measured on Linux x64 (Node 20). */
const OTHER = 20 << 20

/** What an instruction of a program takes beside its values, as measured there: its nodes while it is traced, its words, its kernel. */
const INSTRUCTION = 20_000

const bodySizes = new WeakMap<Graph, number>()

/** Instructions of a body, about: fusion makes fewer of them. */
function bodySize(graph: Graph): number {
  let known = bodySizes.get(graph)
  if (known === undefined) {
    const own = schedule(graph.outputs).filter(({ op }) => op.kind !== 'leaf' && op.kind !== 'view')
    known = own.reduce((n, node) => n + 1 + bodiesOf(node), 0)
    bodySizes.set(graph, known)
  }
  return known
}

const bodiesOf = ({ op, attrs }: Pick<Instruction, 'op' | 'attrs'>): number =>
  Object.entries(op.attrs).reduce((n, [name, type]) => n + (type === 'graph' ? bodySize(attrs[name] as Graph) : 0), 0)

/** Bytes of programs themselves, bodies of loops included. */
export const programBytes = (programs: readonly Pick<Lowered, 'instructions' | 'count'>[]): number =>
  INSTRUCTION *
  programs.reduce((n, { instructions, count }) => n + count + instructions.reduce((m, i) => m + bodiesOf(i), 0), 0)

/** What the search for a way to fit leaves behind in the JavaScript heap, as measured for models of 5 to 15 layers. */
const PLANNING = 24 << 20

/** What a run holds beside the arena. */
export interface HeldMemory {
  weights: number
  optimizer: number
  /** Sums of gradients over micro-batches. */
  gradients: number
  /** Batches on their way, and what lies outside of native memory. */
  other: number
}

/**
 * What a run on such micro-batches holds all the time, whatever the arena is.
 * @param fitted a way to run within a budget is or was looked for
 */
export function heldMemory(trainer: Trainer, microBatches: readonly Batch[], fitted: boolean): HeldMemory {
  const used = trainer.evaluatedApart.reduce((n, k) => n + avalBytes(trainer.parameters[k]), 0)
  const batch = microBatches.reduce((n, b) => n + Object.values(b).reduce((m, a) => m + avalBytes(a), 0), 0) * 3
  return {
    weights: bytes(trainer.parameters) + bytes(trainer.moduleState) + used,
    optimizer: bytes(trainer.slots),
    gradients: trainer.heldBytes(microBatches.length),
    other: OTHER + batch + (fitted ? PLANNING : 0),
  }
}

/** What a step will hold, and its cost; exact for everything in native memory. */
export function planMemory(
  trainer: Trainer,
  microBatches: readonly Batch[],
  weighted = false,
): { memory: MemoryByHolder; flops: number } {
  const plans = trainer.plan(microBatches[0], microBatches.length, weighted)
  const largest = largestPlan(plans)
  const held = heldMemory(trainer, microBatches, trainer.options.arena !== undefined)
  const other = held.other + programBytes(plans)
  const arena = arenaAtPeak(largest)
  const memory = {
    weights: held.weights,
    gradients: arena.gradients + held.gradients,
    optimizer: held.optimizer,
    activations: arena.activations,
    workspace: arena.workspace,
    other,
    total: held.weights + held.gradients + held.optimizer + other + largest.arenaBytes,
  }
  const middle = Math.max(0, microBatches.length - 2)
  const flops =
    plans.length < 3
      ? plans.reduce((n, p) => n + planFlops(p), 0)
      : planFlops(plans[0]) + middle * planFlops(plans[1]) + planFlops(plans[2])
  return { memory, flops }
}
