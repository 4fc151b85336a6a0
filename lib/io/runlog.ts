import { SteepestError } from '../errors.js'
import { atomicWriteFile, fileError, type FileSystem, nodeFileSystem, type OpenFile } from './files.js'
import { readFully } from './read.js'
import type { JsonRecord } from './state.js'

/** How a log is opened. */
export interface RunLogOptions {
  /** Drops the lines whose `step` is greater: those of steps that a resumed run makes again. */
  readonly keepThroughStep?: number
  /** @internal */ readonly fs?: FileSystem
}

const NEWLINE = 10

/**
 * `run.jsonl`: one JSON object per line, only ever appended to. A line is whole or not there: what a kill or a full disk
 * cut off is removed at once or at the next opening.
 */
export class RunLog {
  private queue: Promise<void> = Promise.resolve()

  private constructor(
    readonly path: string,
    private readonly file: OpenFile,
    private bytes: number,
  ) {}

  /**
   * Opens a log for appending; makes it where there is none.
   *
   * @throws SteepestError FILE.
   */
  static async open(path: string, options: RunLogOptions = {}): Promise<RunLog> {
    const fs = options.fs ?? nodeFileSystem
    try {
      if (options.keepThroughStep !== undefined) await dropAfter(path, options.keepThroughStep, fs)
      const file = await fs.open(path, 'append')
      try {
        return new RunLog(path, file, await repair(path, file))
      } catch (error) {
        await file.close().catch(() => undefined)
        throw error
      }
    } catch (error) {
      throw fileError(path, 'opened', error)
    }
  }

  /** Appends one line; returns when the system has it (not yet the device: see `flush`). Calls keep their order. */
  append(event: JsonRecord): Promise<void> {
    const line = Buffer.from(`${JSON.stringify(event)}\n`)
    return this.inTurn('written', async () => {
      try {
        for (let done = 0; done < line.length; ) {
          const n = await this.file.append(line.subarray(done))
          if (n === 0) throw Object.assign(new Error('the system wrote no bytes'), { code: 'EIO' })
          done += n
        }
        this.bytes += line.length
      } catch (error) {
        await this.file.truncate(this.bytes).catch(() => undefined)
        throw error
      }
    })
  }

  /** Returns when all lines are on the device. */
  flush(): Promise<void> {
    return this.inTurn('synced', () => this.file.sync())
  }

  async close(): Promise<void> {
    await this.inTurn('closed', () => this.file.close())
  }

  private inTurn(what: string, action: () => Promise<void>): Promise<void> {
    const result = this.queue.then(action).catch((error) => Promise.reject(fileError(this.path, what, error)))
    this.queue = result.catch(() => undefined)
    return result
  }
}

/** Cuts a torn last line off, or ends it where only the end of the line is missing; returns the size. */
async function repair(path: string, file: OpenFile): Promise<number> {
  const size = await file.size()
  const tail: Uint8Array[] = []
  let end = size
  let begin = -1
  while (end > 0 && begin < 0) {
    const piece = new Uint8Array(Math.min(65536, end))
    await readFully(path, file, piece, end - piece.length)
    begin = piece.lastIndexOf(NEWLINE)
    tail.unshift(piece.subarray(begin + 1))
    end -= piece.length - (begin + 1)
  }
  if (end === size) return size
  if (isObject(Buffer.concat(tail).toString())) {
    if ((await file.append(Uint8Array.of(NEWLINE))) === 1) return size + 1
  }
  await file.truncate(end)
  return end
}

function isObject(line: string): boolean {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null
  } catch {
    return false
  }
}

async function dropAfter(path: string, step: number, fs: FileSystem): Promise<void> {
  if (!(await fs.info(path))) return
  const lines = await readLines(path, fs)
  const kept = lines.filter((line) => {
    const at = isObject(line) ? (JSON.parse(line) as { step?: unknown }).step : Infinity
    return !(typeof at === 'number' && at > step)
  })
  if (kept.length !== lines.length) await atomicWriteFile(path, kept.map((line) => `${line}\n`).join(''), fs)
}

/** All lines; the last one also without its end, where it is whole. */
async function readLines(path: string, fs: FileSystem): Promise<string[]> {
  const file = await fs.open(path, 'read')
  try {
    const bytes = new Uint8Array(await file.size())
    await readFully(path, file, bytes, 0)
    const lines = new TextDecoder().decode(bytes).split('\n')
    const tail = lines.pop() ?? ''
    return isObject(tail) ? [...lines, tail] : lines
  } finally {
    await file.close()
  }
}

/**
 * The events of a `run.jsonl`, without a torn last line.
 *
 * @throws SteepestError FILE where it cannot be read, FORMAT with the line that is no JSON object.
 */
export async function readRunLog(path: string, fs: FileSystem = nodeFileSystem): Promise<JsonRecord[]> {
  const lines = await readLines(path, fs).catch((error) => Promise.reject(fileError(path, 'read', error)))
  return lines.map((line, i) => {
    if (!isObject(line))
      throw new SteepestError('FORMAT', { who: `${path}:${i + 1}`, rule: 'each line is a JSON object' })
    return JSON.parse(line) as JsonRecord
  })
}
