import { constants } from 'node:buffer'
import { setImmediate } from 'node:timers/promises'
import { SteepestError } from '../errors.js'
import { fileError, type FileSystem, nodeFileSystem } from '../io/files.js'
import { PIECE, readFully } from '../io/read.js'

/**
 * A text file as a string, read and decoded piece by piece so that the event loop goes on. A byte order mark is left out.
 *
 * @throws SteepestError FILE where it cannot be read, DATA where it is empty, too long for a string or no UTF-8.
 */
export async function readText(path: string, fs: FileSystem = nodeFileSystem): Promise<string> {
  const bad = (rule: string, got = '', fix = '') => new SteepestError('DATA', { who: path, rule, got, fix })
  try {
    if ((await fs.info(path))?.folder) throw Object.assign(new Error(), { code: 'EISDIR' })
    const file = await fs.open(path, 'read')
    try {
      const size = await file.size()
      if (size === 0) throw bad('the text must not be empty', '0 bytes', 'Give a file with some text in it')
      if (size > constants.MAX_STRING_LENGTH) {
        const most = Math.floor(constants.MAX_STRING_LENGTH / 1e6)
        throw bad(
          `a text is at most ${most} MB long`,
          `${Math.ceil(size / 1e6)} MB`,
          'Cut it into files and train on one after the other',
        )
      }
      const decoder = new TextDecoder('utf-8', { fatal: true })
      const parts: string[] = []
      const scratch = new Uint8Array(Math.min(PIECE, size))
      for (let at = 0; at < size; at += PIECE) {
        const piece = scratch.subarray(0, Math.min(PIECE, size - at))
        await readFully(path, file, piece, at)
        parts.push(decode(path, decoder, piece, at + piece.length < size))
        await setImmediate()
      }
      const text = parts.join('')
      if (text.trim() === '')
        throw bad('the text must not be empty', 'white space alone', 'Give a file with some text in it')
      return text
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fileError(path, 'read', error)
  }
}

function decode(path: string, decoder: InstanceType<typeof TextDecoder>, piece: Uint8Array, more: boolean): string {
  try {
    return decoder.decode(piece, { stream: more })
  } catch {
    throw new SteepestError('DATA', {
      who: path,
      rule: 'the text must be UTF-8',
      got: piece.includes(0) ? 'bytes that are no text' : 'bytes of another encoding',
      fix: piece.includes(0) ? 'Give a text file' : 'Convert it: iconv -f LATIN1 -t UTF-8',
    })
  }
}

/** How often each token occurs; as long as the largest token and one more. */
function counts(tokens: Int32Array): Float64Array {
  let largest = -1
  for (const token of tokens) if (token > largest) largest = token
  const out = new Float64Array(largest + 1)
  for (const token of tokens) out[token]++
  return out
}

/**
 * The mean loss, in nats a token, of a model that knows how often each token occurs in `tokens` and nothing else:
 * H = −Σ p·ln p. What a model has learned of a text beyond that is what its loss lies below it. 0 for no tokens.
 */
export function unigramEntropy(tokens: Int32Array): number {
  let sum = 0
  for (const n of counts(tokens)) if (n > 0) sum += n * Math.log(n)
  return tokens.length === 0 ? 0 : Math.max(0, Math.log(tokens.length) - sum / tokens.length)
}
