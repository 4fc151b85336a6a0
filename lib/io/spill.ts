import { randomUUID } from 'node:crypto'
import { statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SteepestError } from '../errors.js'
import { fileError, type FileSystem, nodeFileSystem, type OpenFile } from './filesystem.js'
import { PIECE, readFully } from './read.js'

/** File systems of Linux that are memory themselves: tmpfs and ramfs. */
const IN_MEMORY = new Set([0x01021994, 0x858458f6])

/** The folder of temporary files; where nobody chose one (TMPDIR) and it is memory, the one that is on a disk. */
export async function spillFolder(): Promise<string> {
  const usual = tmpdir()
  if (process.platform !== 'linux' || process.env.TMPDIR !== undefined) return usual
  const isMemory = async (dir: string) => {
    const type = await statfs(dir).then(
      (info) => info.type,
      () => undefined,
    )
    return type === undefined || IN_MEMORY.has(type)
  }
  return (await isMemory(usual)) && !(await isMemory('/var/tmp')) ? '/var/tmp' : usual
}

/** Where a {@link Spill} is written, and how. */
export interface SpillOptions {
  readonly fs?: FileSystem
  readonly folder?: string
}

function unwritten(folder: string, error: unknown): SteepestError {
  const { rule } = fileError(folder, 'written for data that do not fit into memory', error)
  const fix = 'Free some space there, or name another folder for temporary files with TMPDIR'
  return new SteepestError('FILE', { who: folder, rule, fix }, { cause: error })
}

/** Closes files whose owner nobody has any more. */
const forgotten = new FinalizationRegistry<OpenFile>((file) => void file.close().catch(() => undefined))

/**
 * Bytes that are too many for memory, in a file that has no name: it is removed from its folder as soon as it is open, so that nothing is left
 * behind however the process ends. Written from the beginning to the end, then read at any place.
 */
export class Spill {
  private readonly pending = new Uint8Array(PIECE)
  private filled = 0
  private written = 0

  private constructor(
    private readonly folder: string,
    private readonly file: OpenFile,
  ) {
    forgotten.register(this, file, this)
  }

  /** @throws SteepestError FILE where the folder cannot be written */
  static async open({ fs = nodeFileSystem, folder }: SpillOptions = {}): Promise<Spill> {
    const dir = folder ?? (await spillFolder())
    const path = join(dir, `steepest-${process.pid}-${randomUUID()}.rows`)
    let file: OpenFile | undefined
    try {
      file = await fs.open(path, 'append')
      await fs.remove(path)
      return new Spill(dir, file)
    } catch (error) {
      await file?.close().catch(() => undefined)
      throw unwritten(dir, error)
    }
  }

  /** Bytes that were appended. */
  get bytes(): number {
    return this.written + this.filled
  }

  /** @throws SteepestError FILE, where the disk is full for example */
  async append(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; ) {
      const part = data.subarray(at, at + PIECE - this.filled)
      this.pending.set(part, this.filled)
      this.filled += part.length
      at += part.length
      if (this.filled === PIECE) await this.flush()
    }
  }

  /** After the last byte, before the first is read. */
  async flush(): Promise<void> {
    try {
      for (let at = 0; at < this.filled; ) at += await this.file.append(this.pending.subarray(at, this.filled))
    } catch (error) {
      throw unwritten(this.folder, error)
    }
    this.written += this.filled
    this.filled = 0
  }

  /** Fills `target` from a place on. */
  async read(target: Uint8Array, position: number): Promise<void> {
    try {
      await readFully(this.folder, this.file, target, position)
    } catch (error) {
      throw fileError(this.folder, 'read', error)
    }
  }

  /** Gives the space back. */
  async close(): Promise<void> {
    forgotten.unregister(this)
    await this.file.close()
  }
}
