import { createHash } from 'node:crypto'
import { existsSync, realpathSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { native } from '../addon.js'
import { SteepestError } from '../errors.js'
import type { StepData, StepSource } from './data.js'
import { mappedSource, splitBatches, splitsOf } from './split.js'

/**
 * The processes that train one model together, each on its share of the rows of every batch. The first one (rank 0) writes what the run
 * leaves and tells how it goes.
 */
export interface Processes {
  /** Number of this process, from 0. */
  readonly rank: number
  readonly size: number
}

/** Cores of this machine for each of its processes. */
export const threadsOfEach = (env: NodeJS.ProcessEnv = process.env): number =>
  Math.max(1, Math.floor(availableParallelism() / (Number(env.OMPI_COMM_WORLD_LOCAL_SIZE) || 1)))

/** How many processes `mpirun` has started; 1 where this one was started by itself. */
export const launchedProcesses = (env: NodeJS.ProcessEnv = process.env): number =>
  Math.max(1, Number(env.OMPI_COMM_WORLD_SIZE) || 1)

/**
 * @internal For what several processes would each do by themselves.
 * @throws SteepestError OPTION where mpirun has started more than one
 */
export function requireOneProcess(who: string, env: NodeJS.ProcessEnv): void {
  const size = launchedProcesses(env)
  if (size === 1) return
  throw new SteepestError('OPTION', {
    who,
    rule: 'only `train` runs on several processes yet',
    got: `${size} processes of mpirun`,
    fix: 'Start it without mpirun',
  })
}

const FILES = ['libmpi.so.40', 'libmpi.so']

/** Where Open MPI may be: what the user says, where the loader looks, and beside `mpirun`. */
function libraries(env: NodeJS.ProcessEnv): string[] {
  const starters = (env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'mpirun'))
  const beside = starters
    .filter((path) => existsSync(path))
    .map((path) => join(dirname(realpathSync(path)), '..', 'lib'))
  return [
    ...(env.STEEPEST_MPI ? [env.STEEPEST_MPI] : []),
    ...FILES,
    ...beside.flatMap((folder) => FILES.map((file) => join(folder, file))),
  ]
}

let joined: Processes | undefined

/**
 * @internal Joins the processes that `mpirun` has started, by Open MPI. Once for all; later calls give the same.
 * @throws SteepestError OPTION where the process was not started so, NATIVE where Open MPI cannot be opened
 */
export function joinProcesses(env: NodeJS.ProcessEnv = process.env): Processes {
  if (joined) return joined
  if (env.OMPI_COMM_WORLD_SIZE === undefined) {
    throw new SteepestError('OPTION', {
      who: 'parallel',
      rule: 'a run on several processes must be started by mpirun',
      fix: 'Start it as: mpirun -n 2 npx steepest train …',
    })
  }
  try {
    joined = native().joinProcesses(libraries(env))
  } catch (cause) {
    throw new SteepestError(
      'NATIVE',
      {
        who: 'parallel',
        rule: 'Open MPI could not be used',
        got: (cause as Error).message,
        fix: 'Install Open MPI (Debian: libopenmpi3), or name its libmpi.so in STEEPEST_MPI',
      },
      { cause },
    )
  }
  // mpirun takes a process that ends without a word for one that failed.
  process.once('beforeExit', leaveProcesses)
  return joined
}

/** @internal Says that this process has done its part, so that `mpirun` does not take its end for a failure. */
export function leaveProcesses(): void {
  if (joined) native().leaveProcesses()
  joined = undefined
}

/** @internal What the first process has, in all of them: a value that JSON can hold. */
export function fromFirst<T>(processes: Processes | undefined, value: T): T {
  if (!processes || processes.size === 1) return value
  const mine = processes.rank === 0 ? Buffer.from(JSON.stringify(value)) : Buffer.alloc(0)
  const length = Float64Array.of(mine.length)
  native().sumOfProcesses(length)
  const bytes = new Float64Array(length[0])
  bytes.set(mine)
  native().sumOfProcesses(bytes)
  return JSON.parse(Buffer.from(Uint8Array.from(bytes)).toString()) as T
}

/**
 * @internal Processes that train different things would wait for each other for ever, or learn nonsense.
 * @throws SteepestError OPTION in all of them where `facts` are not the same in all
 */
export function requireAgreement(processes: Processes, facts: unknown): void {
  const digest = createHash('sha256').update(JSON.stringify(facts)).digest()
  // Sums of numbers and of their squares are those of equal numbers only where all are equal.
  const own = digest.readUInt32LE(0) / 2 ** 32
  const sums = Float64Array.of(own, own * own)
  native().sumOfProcesses(sums)
  const { size } = processes
  if (Math.abs(sums[1] / size - (sums[0] / size) ** 2) < 1e-12) return
  throw new SteepestError('OPTION', {
    who: 'parallel',
    rule: 'all processes of a run must train the same model with the same options',
    fix: 'Give each of them the same flags and files',
  })
}

/** @internal The share of this process in every batch: `rank` of `size` equal parts of its rows. */
export const shareOf = (source: StepSource, processes: Processes): StepSource =>
  processes.size === 1 ? source : mappedSource(source, (data) => ownShare(data, processes))

/** @internal What of a step's data is this process's. */
export function ownShare(data: StepData, { rank, size }: Processes): StepData {
  if (!splitsOf(data).includes(size)) {
    const rows = Object.values(data.microBatches[0])[0]?.shape[0] ?? 0
    throw new SteepestError('DATA', {
      who: 'parallel',
      rule: `the rows of every batch must come in ${size} equal parts, one for each process, that count alike`,
      got: `${rows} rows`,
      fix: `Give a batch that ${size} divides`,
    })
  }
  const microBatches = data.microBatches.map((batch) => splitBatches([batch], size)[rank])
  return { ...data, microBatches }
}
