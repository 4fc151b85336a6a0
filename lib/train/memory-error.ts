import { SteepestError } from '../errors.js'
import type { Buf } from '../graph/instruction.js'
import type { Tensor } from '../tensor/tensor.js'
import { Budget } from './budget.js'
import type { StepData } from './data.js'
import { avalBytes } from './host.js'
import { largestPlan, liveAtPeak } from './memory.js'
import { moduleOf } from './module-path.js'
import { bytes } from './plot-numbers.js'
import type { Trainer } from './trainer.js'

/** The module path in the label of a buffer: `path: op`, `workspace of path: op`, `copy path`; empty where it has none. */
function ownerOf({ label }: Buf): string {
  const [, copied] = /^copy (.*)$/.exec(label) ?? []
  return copied ?? /^(?:workspace of )?(.*): [^:]*$/.exec(label)?.[1] ?? ''
}

/**
 * What holds a run's memory, by module path, the largest first: weights with their states by where they are, and what lives at the fullest
 * moment of a step by the module that made it.
 */
export function holdersOf(trainer: Trainer, data: StepData | undefined): [path: string, bytes: number][] {
  const by = new Map<string, number>()
  const add = (path: string, size: number) => by.set(path || 'the step', (by.get(path || 'the step') ?? 0) + size)
  const addTensors = (tensors: Readonly<Record<string, Tensor>>, what: string, skip = 0) => {
    for (const [path, t] of Object.entries(tensors)) {
      const owner = path.split('.').slice(skip, -1).join('.')
      add(`${moduleOf(owner)} ${what}`.trim(), avalBytes(t))
    }
  }
  addTensors(trainer.parameters, '(weights)')
  // A slot's path begins with `slots` and its name.
  addTensors(trainer.slots, '(optimizer states)', 2)
  if (data) {
    const plan = largestPlan(trainer.plan(data.microBatches[0], data.microBatches.length, data.weight !== undefined))
    for (const buf of liveAtPeak(plan)) add(`${moduleOf(ownerOf(buf))} (values of a step)`, buf.bytes)
  }
  return [...by].sort((a, b) => b[1] - a[1])
}

const SHOWN = 5
const CHANGES = 3

/**
 * An error of the system that had no more memory, with what holds it and what would need less: three ways to run on, with their predicted
 * sizes. Other errors come back as they are.
 */
export function explainMemory(error: unknown, trainer: Trainer, data: StepData | undefined): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code !== 'OUT_OF_MEMORY' || (error instanceof SteepestError && error.who === 'train')) return error
  try {
    return explained(error, trainer, data)
  } catch {
    // There may be too little memory to look for more.
    return error
  }
}

function explained(cause: unknown, trainer: Trainer, data: StepData | undefined): SteepestError {
  const holders = holdersOf(trainer, data).slice(0, SHOWN)
  const rows = data ? new Budget({ ...trainer.options, model: trainer.model, split: 1 }, data).table() : []
  const now = Math.max(0, ...rows.slice(0, 1).map((row) => row.total))
  const changes = rows
    .slice(1)
    .filter((row) => row.total < now)
    .sort((a, b) => Number(b.exact) - Number(a.exact) || a.total - b.total)
    .slice(0, CHANGES)
    .map((row) => `${row.method}: ${bytes(row.total)}${row.exact ? '' : ' (changes the numbers)'}`)
  const what = changes.length > 0 ? `In its place of ${bytes(now)}: ${changes.join('; ')}. ` : ''
  return new SteepestError(
    'OUT_OF_MEMORY',
    {
      who: 'train',
      rule: 'the system gave no more memory',
      got: holders.map(([path, size]) => `${path} ${bytes(size)}`).join(', '),
      fix: `${what}Give a memoryBudget that the machine has, or take a smaller batch`,
    },
    { cause },
  )
}
