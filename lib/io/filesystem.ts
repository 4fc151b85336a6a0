import { constants } from 'node:fs'
import * as fs from 'node:fs/promises'
import { SteepestError } from '../errors.js'

/** How a file is opened: `create` fails where one exists; `append` makes it if needed and may also read and cut it. */
export type OpenMode = 'create' | 'read' | 'append'

/** An open file. `write`, `append` and `read` move up to all of the bytes and return how many: callers loop. */
export interface OpenFile {
  write(data: Uint8Array, position: number): Promise<number>
  append(data: Uint8Array): Promise<number>
  read(target: Uint8Array, position: number): Promise<number>
  truncate(bytes: number): Promise<void>
  size(): Promise<number>
  /** The system's number of the file, where it has one. */
  readonly descriptor?: number
  /** Returns when the data are on the device (fsync). */
  sync(): Promise<void>
  close(): Promise<void>
}

/** What is known of a path; `modified` in milliseconds since 1970. */
export interface FileInfo {
  readonly bytes: number
  readonly folder: boolean
  readonly modified: number
}

/**
 * All that steepest asks of a file system, so that tests can put a failing one in its place.
 * Errors are those of Node: an `Error` with a `code` such as ENOSPC.
 */
export interface FileSystem {
  open(path: string, mode: OpenMode): Promise<OpenFile>
  rename(from: string, to: string): Promise<void>
  /** Makes the folder and those above it; no error where it exists. */
  makeFolder(path: string): Promise<void>
  /** Removes a file or a whole folder; no error where there is none. */
  remove(path: string): Promise<void>
  /** Makes renames in this folder outlast a power cut (fsync of the folder). */
  syncFolder(path: string): Promise<void>
  list(path: string): Promise<string[]>
  /** `undefined` where nothing has that name. */
  info(path: string): Promise<FileInfo | undefined>
}

const FLAGS: Record<OpenMode, number> = {
  create: constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
  read: constants.O_RDONLY,
  append: constants.O_RDWR | constants.O_CREAT | constants.O_APPEND,
}

/** Some file systems cannot sync a folder; there, nothing better can be done. */
const NO_FOLDER_SYNC = new Set(['EINVAL', 'ENOTSUP', 'ENOSYS', 'EISDIR', 'EBADF'])

class NodeFile implements OpenFile {
  constructor(private readonly handle: fs.FileHandle) {}

  get descriptor(): number {
    return this.handle.fd
  }

  async write(data: Uint8Array, position: number): Promise<number> {
    return (await this.handle.write(data, 0, data.length, position)).bytesWritten
  }

  async append(data: Uint8Array): Promise<number> {
    return (await this.handle.write(data, 0, data.length, null)).bytesWritten
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    return (await this.handle.read(target, 0, target.length, position)).bytesRead
  }

  truncate(bytes: number): Promise<void> {
    return this.handle.truncate(bytes)
  }

  async size(): Promise<number> {
    return (await this.handle.stat()).size
  }

  sync(): Promise<void> {
    return this.handle.sync()
  }

  close(): Promise<void> {
    return this.handle.close()
  }
}

/** The file system of this machine. */
export const nodeFileSystem: FileSystem = {
  async open(path, mode) {
    return new NodeFile(await fs.open(path, FLAGS[mode], 0o666))
  },
  rename: (from, to) => fs.rename(from, to),
  async makeFolder(path) {
    await fs.mkdir(path, { recursive: true })
  },
  remove: (path) => fs.rm(path, { recursive: true, force: true }),
  async syncFolder(path) {
    const handle = await fs.open(path, constants.O_RDONLY)
    try {
      await handle.sync()
    } catch (error) {
      if (!NO_FOLDER_SYNC.has(errorCode(error))) throw error
    } finally {
      await handle.close()
    }
  },
  list: (path) => fs.readdir(path),
  async info(path) {
    try {
      const stat = await fs.stat(path)
      return { bytes: stat.size, folder: stat.isDirectory(), modified: stat.mtimeMs }
    } catch (error) {
      if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return undefined
      throw error
    }
  },
}

/** The system's name of an error (ENOSPC, …), or an empty string. */
export function errorCode(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : ''
}

const REASONS: Record<string, readonly [why: string, fix?: string]> = {
  ENOSPC: ['the disk is full', 'Free some space or choose another folder'],
  EDQUOT: ['the disk quota is used up', 'Free some space or choose another folder'],
  EFBIG: ['the file would be larger than the limit of this system or process', 'Raise the limit (ulimit -f)'],
  EROFS: ['the file system is read-only', 'Choose a folder that can be written'],
  EACCES: ['permission is denied', 'Change the permissions or choose another folder'],
  EPERM: ['permission is denied', 'Change the permissions or choose another folder'],
  EIO: ['the disk reports an input/output error', 'Check the disk'],
  ENOENT: ['there is no such file or folder', 'Check the path'],
  EISDIR: ['it is a folder, not a file', 'Give the path of a file'],
  ENOTDIR: ['a part of the path is a file, not a folder', 'Check the path'],
  EEXIST: ['it exists already'],
  EMFILE: ['too many files are open', 'Raise the limit (ulimit -n)'],
  ENFILE: ['too many files are open on this machine'],
  ENAMETOOLONG: ['the name is too long'],
  ELOOP: ['the path goes round in circles of links'],
}

/** One clear sentence for a failed call of the file system. An error that is a SteepestError already stays as it is. */
export function fileError(path: string, what: string, error: unknown): SteepestError {
  if (error instanceof SteepestError) return error
  const code = errorCode(error)
  const [why, fix] = REASONS[code] ?? [error instanceof Error ? error.message : String(error)]
  return new SteepestError(
    'FILE',
    { who: path, rule: `cannot be ${what}: ${why}${code ? ` (${code})` : ''}`, fix },
    { cause: error },
  )
}
