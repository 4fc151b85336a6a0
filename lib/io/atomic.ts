import { basename, dirname, join } from 'node:path'
import { threadId } from 'node:worker_threads'
import { crc32 } from 'node:zlib'
import { SteepestError } from '../errors.js'
import { type FileSystem, fileError, nodeFileSystem, type OpenFile } from './filesystem.js'

/** What a file is written from; pieces are written in order, and only one is held at a time. */
export type Chunks = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>

/** Size and checksum of what was written. */
export interface Digest {
  readonly bytes: number
  readonly crc32: number
}

/** One call of the system moves at most this much, so that other work of the thread pool is not held up. */
const PIECE = 8 << 20

const DAY = 24 * 3600 * 1000
const LEFTOVER = /^\.(tmp|old)-(\d+)-(\d+)-\d+-(.+)$/
const busy = new Set<string>()
let counter = 0

/** A name beside `path` that no other write uses, and that tells which process made it. */
function beside(path: string, kind: 'tmp' | 'old'): string {
  return join(dirname(path), `.${kind}-${process.pid}-${threadId}-${counter++}-${basename(path)}`)
}

/** Writes all of `data`, however few bytes the system takes at once. */
async function writeFully(file: OpenFile, data: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const n = await file.write(data.subarray(done, done + PIECE), position + done)
    if (n === 0) throw Object.assign(new Error('the system wrote no bytes'), { code: 'EIO' })
    done += n
  }
}

/** Writes a new file and syncs it; closes it whatever happens. */
async function writeNew(fs: FileSystem, path: string, chunks: Chunks): Promise<Digest> {
  const file = await fs.open(path, 'create')
  let bytes = 0
  let crc = 0
  try {
    const pieces = typeof chunks === 'string' ? [Buffer.from(chunks)] : chunks instanceof Uint8Array ? [chunks] : chunks
    for await (const piece of pieces) {
      await writeFully(file, piece, bytes)
      bytes += piece.length
      crc = crc32(piece, crc)
    }
    await file.sync()
  } catch (error) {
    await file.close().catch(() => undefined)
    throw error
  }
  await file.close()
  return { bytes, crc32: crc }
}

/**
 * Writes a file as a whole or not at all: under a temporary name in the same folder, synced, renamed, the folder synced.
 * Whatever fails, the old file is as it was and the temporary one is removed.
 *
 * @throws SteepestError FILE with the path and the reason.
 */
export async function atomicWriteFile(path: string, chunks: Chunks, fs: FileSystem = nodeFileSystem): Promise<Digest> {
  const temporary = beside(path, 'tmp')
  busy.add(basename(temporary))
  try {
    const digest = await writeNew(fs, temporary, chunks)
    await fs.rename(temporary, path)
    await fs.syncFolder(dirname(path))
    return digest
  } catch (error) {
    await fs.remove(temporary).catch(() => undefined)
    throw fileError(path, 'written', error)
  } finally {
    busy.delete(basename(temporary))
  }
}

/** Writes files into a folder that nobody sees yet. */
export interface FolderWriter {
  /** `name` is a plain file name. */
  file(name: string, chunks: Chunks): Promise<Digest>
}

/**
 * Writes a folder as a whole or not at all. `write` fills it under a temporary name; then it is synced and renamed.
 * A folder that had the name is replaced; whatever fails, the old one is as it was.
 *
 * @throws SteepestError FILE with the path and the reason.
 */
export async function atomicFolder(
  path: string,
  write: (folder: FolderWriter) => Promise<void>,
  fs: FileSystem = nodeFileSystem,
): Promise<void> {
  const temporary = beside(path, 'tmp')
  const old = beside(path, 'old')
  busy.add(basename(temporary)).add(basename(old))
  let movedAside = false
  try {
    await fs.makeFolder(temporary)
    await write({
      async file(name, chunks) {
        checkFileName(path, name)
        try {
          return await writeNew(fs, join(temporary, name), chunks)
        } catch (error) {
          throw fileError(join(path, name), 'written', error)
        }
      },
    })
    await fs.syncFolder(temporary)
    if (await fs.info(path)) {
      await fs.rename(path, old)
      movedAside = true
    }
    await fs.rename(temporary, path)
    await fs.syncFolder(dirname(path))
  } catch (error) {
    await restore(fs, path, temporary, movedAside ? old : undefined)
    throw fileError(path, 'written', error)
  } finally {
    busy.delete(basename(temporary))
    busy.delete(basename(old))
  }
  if (movedAside) await fs.remove(old).catch(() => undefined)
}

/** After a failure: the old folder gets its name back unless the new one is in place, and the half-written one goes. */
async function restore(fs: FileSystem, path: string, temporary: string, old: string | undefined): Promise<void> {
  if (old !== undefined) {
    const replaced = await fs.info(path).catch(() => undefined)
    await (replaced ? fs.remove(old) : fs.rename(old, path)).catch(() => undefined)
  }
  await fs.remove(temporary).catch(() => undefined)
}

/** Removes a folder so that at no moment half of it has its name. */
export async function removeFolder(path: string, fs: FileSystem = nodeFileSystem): Promise<void> {
  const temporary = beside(path, 'tmp')
  busy.add(basename(temporary))
  try {
    await fs.rename(path, temporary)
    await fs.remove(temporary)
  } catch (error) {
    throw fileError(path, 'removed', error)
  } finally {
    busy.delete(basename(temporary))
  }
}

/**
 * Removes what killed processes left in `folder`, and gives a folder its name back that one of them had moved aside.
 * What a living process may still be writing stays. Never fails: what cannot be cleaned now is cleaned another time.
 */
export async function cleanLeftovers(folder: string, fs: FileSystem = nodeFileSystem): Promise<void> {
  const names = await fs.list(folder).catch(() => [])
  for (const name of names) {
    const match = LEFTOVER.exec(name)
    if (!match) continue
    try {
      const path = join(folder, name)
      const info = await fs.info(path)
      if (!info || inUse(name, Number(match[2]), Number(match[3]), info.modified)) continue
      const target = join(folder, match[4])
      if (match[1] === 'old' && !(await fs.info(target))) await fs.rename(path, target)
      else await fs.remove(path)
    } catch {
      continue
    }
  }
}

/** Process numbers come again (always 1 in many containers), so age decides where the number alone does not. */
function inUse(name: string, pid: number, thread: number, modified: number): boolean {
  if (busy.has(name)) return true
  if (pid === process.pid) return thread !== threadId && modified > performance.timeOrigin
  if (modified < Date.now() - DAY) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

function checkFileName(who: string, name: string): void {
  if (name !== '' && name === basename(name) && !name.startsWith('.') && !name.includes('\0') && !name.includes('\\'))
    return
  throw new SteepestError('ARGUMENT', { who, rule: 'a file in it must have a plain name', got: JSON.stringify(name) })
}
