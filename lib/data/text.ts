import { constants } from 'node:buffer'
import { setImmediate } from 'node:timers/promises'
import { SteepestError } from '../errors.js'
import { fileError, type FileSystem, nodeFileSystem } from '../io/files.js'
import { PIECE, readFully } from '../io/read.js'

/**
 * A text file, decoded piece by piece. A byte order mark is left out.
 *
 * @param most bytes of a file that is taken
 * @throws SteepestError FILE where it cannot be read, DATA where it is empty, longer than `most` or no UTF-8.
 */
export async function* textParts(
  path: string,
  { most = Number.POSITIVE_INFINITY, fs = nodeFileSystem }: { readonly most?: number; readonly fs?: FileSystem } = {},
): AsyncGenerator<string> {
  const bad = (rule: string, got = '', fix = '') => new SteepestError('DATA', { who: path, rule, got, fix })
  const empty = (got: string) => bad('the text must not be empty', got, 'Give a file with some text in it')
  try {
    if ((await fs.info(path))?.folder) throw Object.assign(new Error(), { code: 'EISDIR' })
    const file = await fs.open(path, 'read')
    try {
      const size = await file.size()
      if (size === 0) throw empty('0 bytes')
      if (size > most)
        throw bad(
          `a text is at most ${Math.floor(most / 1e6)} MB long`,
          `${Math.ceil(size / 1e6)} MB`,
          'Cut it into files and read one after the other',
        )
      const decoder = new TextDecoder('utf-8', { fatal: true })
      const scratch = new Uint8Array(Math.min(PIECE, size))
      let blank = true
      for (let at = 0; at < size; at += PIECE) {
        const piece = scratch.subarray(0, Math.min(PIECE, size - at))
        await readFully(path, file, piece, at)
        const text = decode(path, decoder, piece, at + piece.length < size)
        blank &&= text.trim() === ''
        yield text
        await setImmediate()
      }
      if (blank) throw empty('white space alone')
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fileError(path, 'read', error)
  }
}

/**
 * A text file as a string, read and decoded piece by piece so that the event loop goes on. A byte order mark is left out.
 *
 * @throws SteepestError FILE where it cannot be read, DATA where it is empty, too long for a string or no UTF-8.
 */
export async function readText(path: string, fs: FileSystem = nodeFileSystem): Promise<string> {
  const parts: string[] = []
  for await (const part of textParts(path, { most: constants.MAX_STRING_LENGTH, fs })) parts.push(part)
  return parts.join('')
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
