import { SteepestError } from '../errors.js'
import { fileError, type FileSystem, nodeFileSystem, type OpenFile } from './filesystem.js'

/** What `readSmallFile` takes: more is no configuration. */
const SMALL = 100_000_000

/** Bytes that one call of the system reads, a multiple of every element's size. */
export const PIECE = 4 << 20

/** Fills `target` from `position` on, however few bytes the system gives at once. */
export async function readFully(path: string, file: OpenFile, target: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const n = await file.read(target.subarray(done, done + PIECE), position + done)
    if (n === 0) {
      throw new SteepestError('FORMAT', {
        who: path,
        rule: 'the file ended while it was read',
        got: `${position + done} bytes`,
        fix: 'It was cut short after it was opened: do not write to a file in use',
      })
    }
    done += n
  }
}

/** All of a file that is text or small; through the file layer, so that failures can be injected. */
export async function readSmallFile(path: string, fs: FileSystem = nodeFileSystem): Promise<Uint8Array> {
  try {
    const file = await fs.open(path, 'read')
    try {
      const size = await file.size()
      if (size > SMALL)
        throw new SteepestError('FORMAT', { who: path, rule: `it is at most ${SMALL} bytes`, got: `${size}` })
      const bytes = new Uint8Array(size)
      await readFully(path, file, bytes, 0)
      return bytes
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fileError(path, 'read', error)
  }
}
