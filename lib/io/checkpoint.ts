import { join } from 'node:path'
import { SteepestError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import { atomicFolder, type Chunks, cleanLeftovers, type Digest, type FileSystem, nodeFileSystem } from './files.js'
import { readSmallFile } from './read.js'
import { checkKeep, checkpointName, checkpointSteps, rotateCheckpoints, type Rotation } from './rotation.js'
import { type FileDType, openSafetensors, type Safetensors, type TensorSource } from './safetensors.js'
import { type JsonRecord, readState, stateText, verifyFiles } from './state.js'
import { safetensorsChunks } from './writer.js'

export { checkpointSteps } from './rotation.js'
export type { TensorSource } from './writer.js'
export type { Json, JsonRecord } from './state.js'

/** What a checkpoint is made of. */
export interface CheckpointParts {
  /** `config.json`: the model, as Hugging Face writes it; as it is where it is a text. */
  readonly config: JsonRecord | string
  /** `model.safetensors`: the weights and the module's other state. */
  readonly model: Iterable<TensorSource>
  /** `optimizer.safetensors`: the optimizer's slots. */
  readonly optimizer?: Iterable<TensorSource>
  /** All else that a resumed run needs: schedule, data position, random counters, versions. Goes into `state.json`. */
  readonly state: JsonRecord
  /** Mean validation loss at this step, by which the best checkpoint is kept. */
  readonly validationLoss?: number
  /** Tokenizer files by name, such as `tokenizer.json`. */
  readonly tokenizer?: Readonly<Record<string, string | Uint8Array>>
}

/** How a save treats the older checkpoints of the run. */
export interface SaveOptions extends Rotation {
  /** @internal */ readonly fs?: FileSystem
}

/** What a save did. */
export interface SavedCheckpoint {
  readonly dir: string
  /** Older checkpoints that were removed. */
  readonly removed: readonly string[]
  /** Why an older checkpoint could not be removed, if so; the new one is whole all the same. */
  readonly problem?: SteepestError
}

/** A tensor of a checkpoint, not yet read. */
export interface LoadedTensor {
  readonly name: string
  readonly dtype: FileDType
  readonly shape: readonly number[]
  /** Reads straight into `target`; see {@link Safetensors.readInto}. */
  readInto(target: Uint8Array, as?: DType): Promise<void>
  /** Reads piece by piece; see {@link Safetensors.readPieces}. */
  readPieces(take: (bytes: Uint8Array, offset: number) => void, as?: DType): Promise<void>
}

/** An open checkpoint; `close` it when the tensors are read. */
export interface Checkpoint {
  readonly dir: string
  readonly step: number
  readonly config: JsonRecord
  readonly state: JsonRecord
  readonly validationLoss?: number
  readonly model: readonly LoadedTensor[]
  /** Empty where the checkpoint has no optimizer state. */
  readonly optimizer: readonly LoadedTensor[]
  /** Names of the tokenizer files in `dir`. */
  readonly tokenizer: readonly string[]
  close(): Promise<void>
}

/** Where the last whole checkpoint is, and which were passed over and why. */
export interface LatestCheckpoint {
  readonly dir?: string
  readonly step?: number
  readonly skipped: readonly { readonly dir: string; readonly reason: string }[]
}

const OWN_FILES = ['config.json', 'model.safetensors', 'optimizer.safetensors', 'state.json']

/**
 * Writes `runDir/checkpoint-<step>` as a whole or not at all, then removes older checkpoints as `keep` and `keepBest` say.
 * The same parts give the same bytes. Killed at any moment, it leaves the previous checkpoints whole.
 *
 * @throws SteepestError FILE or ARGUMENT; the checkpoints that were there are as they were.
 */
export async function saveCheckpoint(
  runDir: string,
  step: number,
  parts: CheckpointParts,
  options: SaveOptions = {},
): Promise<SavedCheckpoint> {
  const fs = options.fs ?? nodeFileSystem
  const dir = join(runDir, checkpointName(step))
  if (!Number.isSafeInteger(step) || step < 0) {
    throw new SteepestError('ARGUMENT', {
      who: runDir,
      rule: 'the step of a checkpoint is a non-negative integer',
      got: String(step),
    })
  }
  checkKeep(options.keep)
  await cleanLeftovers(runDir, fs)
  const { validationLoss } = parts
  const loss = validationLoss !== undefined && Number.isFinite(validationLoss) ? { validationLoss } : {}
  await atomicFolder(
    dir,
    async (folder) => {
      const files: Record<string, Digest> = {}
      const put = async (name: string, chunks: Chunks) => {
        files[name] = await folder.file(name, chunks)
      }
      const { config } = parts
      await put('config.json', typeof config === 'string' ? config : `${JSON.stringify(config, null, 2)}\n`)
      await put('model.safetensors', safetensorsChunks(join(dir, 'model.safetensors'), parts.model, { format: 'pt' }))
      if (parts.optimizer) {
        await put(
          'optimizer.safetensors',
          safetensorsChunks(join(dir, 'optimizer.safetensors'), parts.optimizer, { format: 'pt' }),
        )
      }
      for (const [name, content] of Object.entries(parts.tokenizer ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))) {
        if (OWN_FILES.includes(name)) {
          throw new SteepestError('ARGUMENT', {
            who: dir,
            rule: 'a tokenizer file must not have the name of another file',
            got: name,
          })
        }
        await put(name, content)
      }
      await folder.file('state.json', stateText(dir, { step, ...loss, state: parts.state, files }))
    },
    fs,
  )
  return { dir, ...(await rotateCheckpoints(runDir, step, options, fs)) }
}

/**
 * Opens a checkpoint and checks every file against the sizes and checksums that were saved (`verify: false` checks the
 * sizes only). The tensors are read later, by `readInto`.
 *
 * @throws SteepestError CHECKPOINT that names the file which is missing, cut short or corrupt.
 */
export async function loadCheckpoint(
  dir: string,
  options: { readonly verify?: boolean /** @internal */; readonly fs?: FileSystem } = {},
): Promise<Checkpoint> {
  const fs = options.fs ?? nodeFileSystem
  const saved = await readState(dir, fs)
  await verifyFiles(dir, saved, options.verify ?? true, fs)
  const config = JSON.parse(new TextDecoder().decode(await readSmallFile(join(dir, 'config.json'), fs))) as JsonRecord
  const open: Safetensors[] = []
  const tensors = async (name: string): Promise<LoadedTensor[]> => {
    if (!(name in saved.files)) return []
    const file = await openSafetensors(join(dir, name), fs)
    open.push(file)
    return [...file.tensors.values()].map(({ name, dtype, shape }) => ({
      name,
      dtype,
      shape,
      readInto: (target, as) => file.readInto(name, target, as),
      readPieces: (take, as) => file.readPieces(name, take, as),
    }))
  }
  const close = async () => {
    await Promise.all(open.map((file) => file.close()))
  }
  try {
    return {
      dir,
      step: saved.step,
      config,
      state: saved.state,
      validationLoss: saved.validationLoss,
      model: await tensors('model.safetensors'),
      optimizer: await tensors('optimizer.safetensors'),
      tokenizer: Object.keys(saved.files).filter((name) => !OWN_FILES.includes(name)),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** The last checkpoint of a run that is whole; later ones that are incomplete or corrupt are passed over and named. */
export async function latestCheckpoint(runDir: string, fs: FileSystem = nodeFileSystem): Promise<LatestCheckpoint> {
  await cleanLeftovers(runDir, fs)
  const skipped: { dir: string; reason: string }[] = []
  for (const step of (await checkpointSteps(runDir, fs)).reverse()) {
    const dir = join(runDir, checkpointName(step))
    try {
      await verifyFiles(dir, await readState(dir, fs), true, fs)
      return { dir, step, skipped }
    } catch (error) {
      skipped.push({ dir, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  return { skipped }
}
