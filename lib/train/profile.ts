import { flopsOf } from '../graph/cost.js'
import type { Instruction } from '../graph/instruction.js'
import { bytesOf } from '../tensor/dtype.js'
import { showShape, sizeOf } from '../tensor/shape.js'
import { moduleOf } from './module-path.js'

/** What some instructions of a step took, in the mean of the steps. */
export interface ProfileRow {
  /** An op, or a module path in which the layers of a stack are one. */
  readonly name: string
  /** Instructions in a step. */
  readonly calls: number
  readonly ms: number
  /** Floating-point operations, from the costs in the op table. */
  readonly flops: number
  /** Bytes that the instructions read and write. */
  readonly bytes: number
}

/** Where the time of training steps goes. */
export interface Profile {
  /** Steps that were looked at. */
  readonly steps: number
  /** Milliseconds of instructions in a step. */
  readonly ms: number
  /** By op and by module, what takes longest first. */
  readonly ops: readonly ProfileRow[]
  readonly modules: readonly ProfileRow[]
}

/** A program of the steps: how often it ran, and the nanoseconds that each of its instructions took in all. */
export interface ProfiledProgram {
  readonly instructions: readonly Instruction[]
  readonly nanoseconds: Float64Array
  readonly runs: number
}

const movedBy = ({ inputs, outputs }: Instruction): number =>
  [...inputs, ...outputs].reduce((n, o) => n + sizeOf(o.shape) * bytesOf(o.dtype), 0)

/** The profile of `steps` steps, each of which ran some of the programs. */
export function profileOf(programs: readonly ProfiledProgram[], steps: number): Profile {
  const by = (nameOf: (i: Instruction) => string): ProfileRow[] => {
    const rows = new Map<string, { name: string; calls: number; ms: number; flops: number; bytes: number }>()
    for (const { instructions, nanoseconds, runs } of programs) {
      instructions.forEach((i, n) => {
        const name = nameOf(i)
        let row = rows.get(name)
        if (!row) rows.set(name, (row = { name, calls: 0, ms: 0, flops: 0, bytes: 0 }))
        row.calls += runs / steps
        row.ms += nanoseconds[n] / 1e6 / steps
        row.flops += (flopsOf(i) * runs) / steps
        row.bytes += (movedBy(i) * runs) / steps
      })
    }
    return [...rows.values()].sort((a, b) => b.ms - a.ms)
  }
  const ops = by((i) => i.op.name)
  return { steps, ms: ops.reduce((n, r) => n + r.ms, 0), ops, modules: by((i) => moduleOf(i.scope) || 'the step') }
}

/**
 * A mean step in the format of Chrome's tracing (`chrome://tracing`, Perfetto): its instructions in their order, each as long as it took in
 * the mean. One row for each program: a step with micro-batches has several.
 */
export function chromeTrace(programs: readonly ProfiledProgram[]): string {
  const traceEvents: object[] = []
  programs.forEach(({ instructions, nanoseconds, runs }, tid) => {
    const name = `program ${tid + 1}, ${runs} runs`
    traceEvents.push({ ph: 'M', name: 'thread_name', pid: 1, tid, args: { name } })
    let ts = 0
    instructions.forEach((i, n) => {
      const dur = nanoseconds[n] / 1e3 / runs
      const args = {
        module: i.scope,
        shapes: [...i.inputs.map((o) => showShape(o.shape)), '→', ...i.outputs.map((o) => showShape(o.shape))].join(
          ' ',
        ),
        'GFLOP/s': flopsOf(i) / dur / 1e3,
        'GB/s': movedBy(i) / dur / 1e3,
      }
      traceEvents.push({ ph: 'X', name: i.op.name, cat: moduleOf(i.scope) || 'the step', pid: 1, tid, ts, dur, args })
      ts += dur
    })
  })
  return `${JSON.stringify({ displayTimeUnit: 'ms', traceEvents })}\n`
}
