import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SteepestError, type ErrorCode } from './errors.js'
import { TABLE_HASH } from './graph/table.gen.js'

/** @internal Native memory of a concrete tensor. */
export interface NativeBuffer {
  readonly bytes: number
  /** Whether it is a part of a file, read when it is looked at. */
  readonly mapped: boolean
  write(source: ArrayBufferView, offset?: number): void
  read(target: ArrayBufferView, offset?: number): void
  free(): void
}

/** @internal Scratch that the programs of one model share; as large as the largest of them. */
export interface NativeArena {
  readonly bytes: number
  release(): void
}

/** @internal */
export interface NativeProgram {
  readonly arenaBytes: number
  /** Nanoseconds by instruction, summed over the profiled runs. */
  readonly profile: Float64Array
}

/** @internal How a job ended. */
export interface NativeOutcome {
  ticket: number
  /** 0 done, 1 non-finite, 2 index out of range, 3 factorization failed, -1 cancelled, -2 error. */
  fault: number
  instruction: number
  code?: string
  message?: string
}

/** @internal */
export interface JobOptions {
  /** Look for the first instruction whose output is not finite, and end there. */
  trace?: boolean
  /** Run only if the job before it did all it had to. */
  chained?: boolean
  /** Add the time of every instruction to the program's profile. */
  profile?: boolean
}

/** @internal */
export interface NativeStream {
  readonly threads: number
  submit(program: NativeProgram, bindings: NativeBuffer[], arena: NativeArena, options?: JobOptions): number
  take(): NativeOutcome[]
  cancel(): void
  close(): void
  ref(): void
  unref(): void
}

/** @internal What there is to say of a device that is not the CPU. */
export interface DeviceInfo {
  readonly facts: readonly (readonly [name: string, value: string])[]
  readonly missing: readonly string[]
  readonly allocatedBytes: number
  readonly totalBytes: number
}

interface Native {
  /** Zeros; or, where the system can, a part of an open file, of which what is written to is copied first. */
  Buffer: new (
    bytes: number,
    file?: number,
    offset?: number,
  ) => NativeBuffer
  Arena: new () => NativeArena
  /** For the current device; `null` plans and checks only. */
  Program: new (
    words: Float64Array,
    constants: Uint8Array,
    threads: number,
    device?: 'null',
  ) => NativeProgram
  Stream: new (wake: () => void) => NativeStream
  workspace(instruction: Float64Array, threads: number): number
  /** The number of threads of streams made from now on. */
  threads(n?: number): number
  /** Trains with the processes that `mpirun` started, by the first of these files of Open MPI that opens; once for all. */
  joinProcesses(libraries: readonly string[]): { rank: number; size: number }
  /** Replaces the numbers by their sums over the processes. */
  sumOfProcesses(numbers: Float64Array): void
  leaveProcesses(): void
  /** The device of buffers, arenas and programs made from now on: cpu or cuda. */
  device(name?: string): string
  /** Of the current device; null for the CPU. `missing`: ops without a kernel. */
  deviceInfo(): DeviceInfo | null
  /** The dispatch level of programs made from now on, lowest: portable. */
  level(name?: string): string
  info(): { level: string; levels: string[]; tableHash: number; allocatedBytes: number }
}

const here = dirname(fileURLToPath(import.meta.url))

/** Folder of the package: one above `lib/` in a clone and above `dist/` where it is installed. */
export const packageRoot = join(here, '..')

/** Without one there is one sentence, from whoever looks first. */
function missing(cause: unknown): SteepestError {
  return new SteepestError(
    'NATIVE',
    {
      who: 'steepest',
      rule: `the native part could not be loaded on ${process.platform}-${process.arch}, Node ${process.version}`,
      got: cause instanceof Error ? cause.message.split('\n')[0] : String(cause),
      fix: 'Build it with: npx steepest build (in a clone: npm run compile)',
    },
    { cause },
  )
}

/**
 * @internal Where the native part is; it is not loaded.
 * @throws SteepestError NATIVE where there is none for this machine
 */
export function findNative(): string {
  const { resolve } = createRequire(import.meta.url)('node-gyp-build') as { resolve(dir: string): string }
  try {
    return resolve(packageRoot)
  } catch (cause) {
    throw missing(cause)
  }
}

function load(): Native {
  const path = findNative()
  let native: Native
  try {
    native = createRequire(import.meta.url)(path) as Native
  } catch (cause) {
    throw missing(cause)
  }
  if (native.info().tableHash !== Number.parseInt(TABLE_HASH, 16)) {
    throw new SteepestError('NATIVE', {
      who: 'steepest',
      rule: 'the native part was built from another op table than the TypeScript beside it',
      fix: 'Rebuild it with: npx steepest build (in a clone: npm run compile)',
    })
  }
  return { ...native, Buffer: telling(native.Buffer) }
}

/** Native memory whose errors (none left, a device that failed) are of the kind that all others are. */
function telling(Raw: Native['Buffer']): Native['Buffer'] {
  const told = <T>(f: () => T): T => {
    try {
      return f()
    } catch (error) {
      // What breaks the contract of the addon stays what it is.
      throw (error as { code?: string }).code === undefined ? error : fromNative('memory', error)
    }
  }
  class Checked extends Raw {
    override write(source: ArrayBufferView, offset?: number): void {
      told(() => super.write(source, offset))
    }
    override read(target: ArrayBufferView, offset?: number): void {
      told(() => super.read(target, offset))
    }
  }
  return new Proxy(Checked, { construct: (made, args, target) => told(() => Reflect.construct(made, args, target)) })
}

let loaded: Native | undefined

/** @internal The addon, loaded when first needed. */
export const native = (): Native => (loaded ??= load())

/** @internal What programs and plans are made for. */
export const placeKey = (): string => `${native().device()} ${native().threads()}`

/** @internal A SteepestError with a JavaScript stack from what the addon threw. */
export function fromNative(who: string, error: unknown): SteepestError {
  if (error instanceof SteepestError) return error
  const code = (error as { code?: ErrorCode }).code ?? 'NATIVE'
  return new SteepestError(
    code,
    { who, rule: error instanceof Error ? error.message : String(error) },
    { cause: error },
  )
}
