import { millisecondsOf } from './cost.js'
import { align } from './allocate.js'
import { type Buf, inPlacePairs, type Instruction, isWhole, type Lowered, newBuf } from './instruction.js'
import { bytesOf } from '../tensor/dtype.js'
import { endOfForward, type Packed, packedWay } from './recompute-pack.js'
import { wayTo } from './recompute-recipe.js'

/** An instruction as a simulation sees it: values of the arena by number. */
export interface Step {
  readonly instruction: Instruction
  readonly reads: readonly number[]
  readonly writes: readonly number[]
  /** Pairs [written, read] that may share their place. */
  readonly pairs: readonly (readonly [number, number])[]
  readonly scratch: number
  readonly milliseconds: number
}

/** How a value is computed again. */
export interface Recipe {
  readonly step: Step
  /** The last step before which it still gives the same numbers: its operands outside of the arena are overwritten there. */
  readonly until: number
  /** What is run in the place of the step that makes the value where nobody reads that; null for nothing, absent where it cannot do without. */
  readonly rest?: Step | null
  /** Recipes are run in this order where they are run at the same time. */
  readonly rank: number
}

/** How a value is kept in fewer bits for the backward pass. */
export interface Pack {
  readonly pack: Step
  /** How the value comes back. */
  readonly unpack: Recipe
}

/** A program in which any value that has a recipe may be given up and computed again. */
export interface Model {
  readonly steps: readonly Step[]
  readonly bufs: readonly Buf[]
  readonly bytes: readonly number[]
  /** The step that makes each value. */
  readonly madeAt: readonly number[]
  /** The steps that read each value, in order. */
  readonly readAt: readonly (readonly number[])[]
  readonly recipes: readonly (Recipe | undefined)[]
  /** Values that may be kept in fewer bits, where that is allowed. */
  readonly packs: ReadonlyMap<number, Pack>
  /** The step that ends the forward pass, where values may be kept in fewer bits. */
  readonly forwardEnd: number
  /** Milliseconds of all steps, nothing computed again. */
  readonly milliseconds: number
}

/** The program, and what may be given up of it: exactly, or, where `packed` says so, by activations in fewer bits. */
export function modelOf({ instructions, workspace }: Lowered, packed?: Packed): Model {
  const numbers = new Map<Buf, number>()
  const bufs: Buf[] = []
  const numberOf = (buf: Buf): number => {
    if (buf.space !== 'arena') return -1
    let n = numbers.get(buf)
    if (n === undefined) {
      numbers.set(buf, (n = bufs.length))
      bufs.push(buf)
    }
    return n
  }
  const inArena = (n: number) => n >= 0
  const stepOf = (i: Instruction): Step => {
    const reads = i.inputs.map((o) => numberOf(o.buf))
    const writes = i.outputs.map((o) => numberOf(o.buf))
    const pairs = inPlacePairs(i).flatMap(([o, n]): (readonly [number, number])[] => {
      const [out, input] = [i.outputs[o], i.inputs[n]]
      if (!out || !input || !inArena(reads[n]) || !inArena(writes[o]) || !isWhole(input) || !isWhole(out)) return []
      if (bytesOf(input.dtype) !== bytesOf(out.dtype) || input.buf.bytes !== out.buf.bytes) return []
      const other = i.inputs.some((x, j) => j !== n && x.buf === input.buf && !isWhole(x))
      return other ? [] : [[writes[o], reads[n]]]
    })
    return {
      instruction: i,
      reads: [...new Set(reads.filter(inArena))],
      writes: writes.filter(inArena),
      pairs,
      scratch: align(i.workspace.bytes),
      milliseconds: millisecondsOf(i),
    }
  }
  const steps = instructions.map(stepOf)
  const count = bufs.length
  const madeAt = new Array<number>(count).fill(-1)
  const readAt: number[][] = Array.from({ length: count }, () => [])
  /** When externals are written. */
  const writtenAt = new Map<Buf, number[]>()
  steps.forEach((step, at) => {
    for (const v of step.writes) madeAt[v] = at
    for (const v of step.reads) readAt[v].push(at)
    for (const { buf } of step.instruction.outputs) {
      if (buf.space === 'external') writtenAt.set(buf, [...(writtenAt.get(buf) ?? []), at])
    }
  })
  const recipes = new Array<Recipe | undefined>(count).fill(undefined)
  const packs = new Map<number, Pack>()
  const forwardEnd = packed ? endOfForward(instructions) : -1
  instructions.forEach((i, at) => {
    i.outputs.forEach((o, output) => {
      const v = numbers.get(o.buf)
      if (v === undefined || readAt[v].length === 0) return
      const whole = (bare: Omit<Instruction, 'workspace'>): Step => {
        const unchanged = bare.op === i.op && bare.attrs === i.attrs
        const bytes = unchanged ? i.workspace.bytes : workspace(bare)
        return stepOf({ ...bare, workspace: newBuf('arena', bytes, i.workspace.label) })
      }
      const crosses = at < forwardEnd && readAt[v][readAt[v].length - 1] > forwardEnd
      const low = packed && crosses ? packedWay(i, output, packed) : undefined
      if (low) {
        const unpack = { step: whole(low.unpack), until: Infinity, rank: 2 * at }
        packs.set(v, { pack: whole(low.pack), unpack })
      }
      const way = wayTo(i, output)
      if (!way) return
      const writes = way.instruction.inputs.map((x) => writtenAt.get(x.buf)?.find((w) => w > at) ?? Infinity)
      recipes[v] = {
        step: whole(way.instruction),
        rest: way.rest && whole(way.rest),
        until: Math.min(Infinity, ...writes),
        rank: 2 * at + Number(way.beside),
      }
    })
  })
  const bytes = bufs.map((b) => align(b.bytes))
  return {
    steps,
    bufs,
    bytes,
    madeAt,
    readAt,
    recipes,
    packs,
    forwardEnd,
    milliseconds: steps.reduce((n, s) => n + s.milliseconds, 0),
  }
}

/** How a value that is given up comes back: from what it was kept in, or computed again. */
export const wayBack = (model: Model, packed: ReadonlySet<number>, value: number): Recipe | undefined =>
  packed.has(value) ? model.packs.get(value)!.unpack : model.recipes[value]
