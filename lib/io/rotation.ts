import { join } from 'node:path'
import { SteepestError } from '../errors.js'
import { fileError, type FileSystem, nodeFileSystem, removeFolder } from './files.js'
import { readState, verifyFiles } from './state.js'

/** Which checkpoints of a run stay. */
export interface Rotation {
  /** How many of the last whole checkpoints stay; all where not given. */
  readonly keep?: number
  /** Whether the one with the least validation loss stays too (the earlier of two equal ones); true where not given. */
  readonly keepBest?: boolean
}

/** Name of the folder of a step's checkpoint. */
export const checkpointName = (step: number): string => `checkpoint-${step}`

/** The steps of the folders named `checkpoint-N` in a run folder, ascending; whole or not. */
export async function checkpointSteps(runDir: string, fs: FileSystem = nodeFileSystem): Promise<number[]> {
  const names = (await fs.info(runDir)) ? await fs.list(runDir) : []
  const steps = names.flatMap((name) => /^checkpoint-(0|[1-9]\d*)$/.exec(name)?.[1] ?? []).map(Number)
  return steps.filter(Number.isSafeInteger).sort((a, b) => a - b)
}

/** @throws SteepestError OPTION where a run would keep no checkpoint at all. */
export function checkKeep(keep: number | undefined): void {
  if (keep === undefined || keep >= 1) return
  throw new SteepestError('OPTION', { who: 'keep', rule: 'at least one checkpoint is kept', got: String(keep) })
}

/**
 * Removes the checkpoints that are neither among the last `keep` whole ones nor the best. One that is not whole does not
 * count, and goes when it is older than those that stay. `newest` always stays.
 */
export async function rotateCheckpoints(
  runDir: string,
  newest: number,
  { keep = Infinity, keepBest = true }: Rotation,
  fs: FileSystem,
): Promise<{ removed: string[]; problem?: SteepestError }> {
  const removed: string[] = []
  if (keep === Infinity) return { removed }
  try {
    const steps = await checkpointSteps(runDir, fs)
    const whole: number[] = []
    let best: { step: number; loss: number } | undefined
    for (const step of steps) {
      const dir = join(runDir, checkpointName(step))
      try {
        const saved = await readState(dir, fs)
        await verifyFiles(dir, saved, false, fs)
        whole.push(step)
        const loss = saved.validationLoss
        if (loss !== undefined && loss < (best?.loss ?? Infinity)) best = { step, loss }
      } catch {
        continue
      }
    }
    const last = whole.slice(-keep)
    for (const step of steps) {
      const stays = step === newest || last.includes(step) || (keepBest && step === best?.step) || step > last[0]
      if (stays) continue
      const dir = join(runDir, checkpointName(step))
      await removeFolder(dir, fs)
      removed.push(dir)
    }
    return { removed }
  } catch (error) {
    return { removed, problem: fileError(runDir, 'cleared of old checkpoints', error) }
  }
}
