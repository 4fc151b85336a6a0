import {
  fromNative,
  type JobOptions,
  native,
  placeKey,
  type NativeArena,
  type NativeBuffer,
  type NativeOutcome,
  type NativeProgram,
  type NativeStream,
} from '../addon.js'
import { SteepestError } from '../errors.js'
import { encode, encodeAlone } from './encode.js'
import { holding } from '../tensor/tensor.js'
import type { Graph } from './graph.js'
import { optimize } from './passes/index.js'
import { lower } from './lower.js'
import type { Instruction, Lowered } from './instruction.js'
import type { Plan } from './place.js'
import { makePlan, type PlanOptions } from './plan.js'

/** A graph that is ready to run. */
export interface Executable {
  readonly plan: Plan
  readonly program: NativeProgram
}

const bodies = new WeakMap<Graph, { place: string; plan: Plan }>()

/** The plan of a loop's or branch's body: its program runs within an instruction of another. */
function planBody(graph: Graph): Plan {
  const place = placeKey()
  const known = bodies.get(graph)
  if (known?.place === place) return known.plan
  const plan = planned(graph, new Set())
  bodies.set(graph, { place, plan })
  return plan
}

/** Scratch that the backend wants for an instruction. */
function workspaceOf(i: Omit<Instruction, 'workspace'>): number {
  try {
    return native().workspace(encodeAlone(i, planBody), native().threads())
  } catch (error) {
    throw fromNative(i.scope ? `${i.scope}: ${i.op.name}` : i.op.name, error)
  }
}

const planned = (graph: Graph, donated: ReadonlySet<number>, options?: PlanOptions): Plan =>
  makePlan(optimize(graph), donated, workspaceOf, options)

/** A graph as instructions that have no places yet; nothing is loaded. */
export const lowerGraph = (graph: Graph, donated: ReadonlySet<number>): Lowered =>
  holding(() => lower(optimize(graph), donated, workspaceOf))

/** Rewrites, plans and loads a graph. */
export function build(
  graph: Graph,
  donated: ReadonlySet<number> = new Set(),
  device?: 'null',
  options?: PlanOptions,
): Executable {
  const plan = holding(() => planned(graph, donated, options))
  try {
    return { plan, program: new (native().Program)(encode(plan, planBody), plan.constants, native().threads(), device) }
  } catch (error) {
    throw fromNative('program', error)
  }
}

/** Why a run ended before its end. */
export interface Fault {
  readonly kind: 'nonFinite' | 'index' | 'factorization' | 'cancelled'
  /** Op and module path of the instruction. */
  readonly op: string
  readonly scope: string
}

const FAULTS = { 1: 'nonFinite', 2: 'index', 3: 'factorization', [-1]: 'cancelled' } as const
const FAULT_RULES = {
  nonFinite: 'a number is not finite',
  index: 'an index is out of range',
  factorization: 'a matrix could not be factorized (singular, or not positive definite)',
  cancelled: 'the run was cancelled',
}
const FAULT_CODES = {
  nonFinite: 'NON_FINITE',
  index: 'ARGUMENT',
  factorization: 'ARGUMENT',
  cancelled: 'ABORTED',
} as const

export class FaultError extends SteepestError {
  readonly fault: Fault
  constructor(fault: Fault) {
    super(FAULT_CODES[fault.kind], {
      who: fault.scope ? `${fault.scope}: ${fault.op}` : fault.op,
      rule: FAULT_RULES[fault.kind],
    })
    this.fault = fault
  }
}

interface Waiting {
  resolve(): void
  reject(error: Error): void
}

/** A native thread that runs jobs in order; a job's promise settles when it is done. */
export class Queue {
  private readonly stream: NativeStream
  private readonly running = new Map<number, { executable: Executable; waiting: Waiting[]; keep: unknown }>()
  private readonly failed = new Map<number, Error>()

  constructor() {
    this.stream = new (native().Stream)(() => this.settle())
  }

  /** Puts a job at the end of the queue and gives its ticket. */
  submit(executable: Executable, bindings: NativeBuffer[], arena: NativeArena, options?: JobOptions): number {
    let ticket: number
    try {
      ticket = this.stream.submit(executable.program, bindings, arena, options)
    } catch (error) {
      throw fromNative('submit', error)
    }
    if (this.running.size === 0) this.stream.ref()
    this.running.set(ticket, { executable, waiting: [], keep: bindings })
    return ticket
  }

  /** Whether the job has not been seen to end yet. */
  busy(ticket: number): boolean {
    return this.running.has(ticket)
  }

  /** Settles when the job is done; rejects with what ended it. */
  wait(ticket: number): Promise<void> {
    const job = this.running.get(ticket)
    if (job) return new Promise((resolve, reject) => job.waiting.push({ resolve, reject }))
    const error = this.failed.get(ticket)
    return error ? Promise.reject(error) : Promise.resolve()
  }

  /** Ends the running job after its instruction and drops what waits. */
  cancel(): void {
    this.stream.cancel()
  }

  close(): void {
    this.stream.close()
  }

  private settle(): void {
    for (const outcome of this.stream.take()) {
      const job = this.running.get(outcome.ticket)
      if (!job) continue
      this.running.delete(outcome.ticket)
      const error = outcome.fault === 0 ? undefined : errorOf(outcome, job.executable)
      if (error) this.failed.set(outcome.ticket, error)
      for (const w of job.waiting) {
        if (error) w.reject(error)
        else w.resolve()
      }
    }
    if (this.running.size === 0) this.stream.unref()
  }
}

function errorOf(outcome: NativeOutcome, executable: Executable): Error {
  if (outcome.fault === -2) {
    return fromNative('run', Object.assign(new Error(outcome.message), { code: outcome.code }))
  }
  const at = executable.plan.instructions[outcome.instruction]
  return new FaultError({
    kind: FAULTS[outcome.fault as keyof typeof FAULTS],
    op: at?.op.name ?? 'run',
    scope: at?.scope ?? '',
  })
}
