import { type FileSystem, nodeFileSystem, type OpenFile } from '../../lib/io/files.js'

/** What goes wrong at one call: an error of the system, half of the bytes, death before the call, or death in mid-write. */
export type Fault = 'ENOSPC' | 'EROFS' | 'EIO' | 'short' | 'kill' | 'torn'

export interface Faulty {
  readonly fs: FileSystem
  /** The calls so far, as `name path`. */
  readonly calls: string[]
}

function die(): never {
  process.kill(process.pid, 'SIGKILL')
  for (;;);
}

const half = (data: Uint8Array): Uint8Array => data.subarray(0, Math.max(1, data.length >> 1))

/**
 * A file system whose call number `at` (from 0) fails as `fault` says; `persist` makes all later calls that write fail too,
 * as they do on a full disk.
 */
export function faulty(at = -1, fault: Fault = 'EIO', persist = false, inner: FileSystem = nodeFileSystem): Faulty {
  const calls: string[] = []
  const due = (name: string, path: string): boolean => {
    calls.push(`${name} ${path}`)
    const n = calls.length - 1
    const hit = n === at || (persist && at >= 0 && n > at && name !== 'remove' && name !== 'close')
    if (hit && fault === 'kill') die()
    if (hit && fault.startsWith('E')) throw Object.assign(new Error(`${fault}: injected, ${name}`), { code: fault })
    return hit
  }
  const file = (path: string, open: OpenFile): OpenFile => ({
    async write(data, position) {
      const hit = due('write', path)
      if (!hit) return open.write(data, position)
      const n = await open.write(half(data), position)
      if (fault === 'torn') die()
      return n
    },
    async append(data) {
      const hit = due('append', path)
      if (!hit) return open.append(data)
      const n = await open.append(half(data))
      if (fault === 'torn') die()
      return n
    },
    async read(target, position) {
      return open.read(due('read', path) && fault === 'short' ? half(target) : target, position)
    },
    async truncate(bytes) {
      due('truncate', path)
      return open.truncate(bytes)
    },
    async size() {
      due('size', path)
      return open.size()
    },
    async sync() {
      due('sync', path)
      return open.sync()
    },
    async close() {
      await open.close()
      due('close', path)
    },
  })
  const fs: FileSystem = {
    async open(path, mode) {
      due('open', path)
      return file(path, await inner.open(path, mode))
    },
    async rename(from, to) {
      due('rename', `${from} -> ${to}`)
      return inner.rename(from, to)
    },
    async makeFolder(path) {
      due('makeFolder', path)
      return inner.makeFolder(path)
    },
    async remove(path) {
      due('remove', path)
      return inner.remove(path)
    },
    async syncFolder(path) {
      due('syncFolder', path)
      return inner.syncFolder(path)
    },
    async list(path) {
      due('list', path)
      return inner.list(path)
    },
    async info(path) {
      due('info', path)
      return inner.info(path)
    },
  }
  return { fs, calls }
}
