import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { SteepestError } from '../errors.js'
import { type Digest, fileError, type FileSystem } from './files.js'
import { PIECE, readFully, readSmallFile } from './read.js'

/** What JSON can hold. Numbers are finite. */
export type Json = null | boolean | number | string | readonly Json[] | JsonRecord
export interface JsonRecord {
  readonly [key: string]: Json | undefined
}

/** What `state.json` of a checkpoint says. */
export interface SavedState {
  readonly step: number
  readonly validationLoss?: number
  readonly state: JsonRecord
  /** Size and checksum of every other file of the folder. */
  readonly files: Readonly<Record<string, Digest>>
}

const FORMAT = 'steepest-checkpoint'
const VERSION = 1

/** Random counters do not survive being rounded to null, so what JSON cannot hold is an error. */
function checkJson(who: string, value: unknown, path: string): void {
  const special =
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.prototype.toString.call(value) !== '[object Object]'
  const bad =
    (typeof value === 'number' && !Number.isFinite(value)) || ['bigint', 'function', 'symbol'].includes(typeof value)
  if (bad || special) {
    throw new SteepestError('ARGUMENT', {
      who,
      rule: `the state of a checkpoint is plain JSON with finite numbers`,
      got: `${special ? value.constructor.name : String(value)} at \`${path}\``,
      fix: 'Save it as a tensor, a string or a list of numbers',
    })
  }
  if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) checkJson(who, inner, path ? `${path}.${key}` : key)
  }
}

/** `state.json`: the same state gives the same text. Its last entry is the checksum of all before it. */
export function stateText(dir: string, saved: SavedState): string {
  checkJson(dir, saved.state, '')
  const { step, validationLoss, state, files } = saved
  const body = { format: FORMAT, version: VERSION, step, validationLoss, state, files }
  return `${JSON.stringify({ ...body, crc32: crc32(JSON.stringify(body)) }, null, 2)}\n`
}

function fail(path: string, rule: string, got?: string): never {
  throw new SteepestError('CHECKPOINT', { who: path, rule, got, fix: 'Resume from another checkpoint' })
}

/** Reads and checks `state.json` of a checkpoint folder. */
export async function readState(dir: string, fs: FileSystem): Promise<SavedState> {
  const path = join(dir, 'state.json')
  const info = await fs.info(path).catch((error) => Promise.reject(fileError(path, 'read', error)))
  if (!info) {
    const there = await fs.info(dir)
    fail(dir, there ? 'a checkpoint has a state.json, and this folder has none' : 'there is no such checkpoint')
  }
  const text = new TextDecoder().decode(await readSmallFile(path, fs))
  let json: Record<string, unknown>
  try {
    json = JSON.parse(text)
  } catch {
    return fail(path, 'the file is corrupt: it is not JSON')
  }
  if (json?.format !== FORMAT)
    fail(path, 'the file is corrupt or of another program: it does not say that it is a steepest checkpoint')
  if (json.version !== VERSION)
    fail(path, `this version of steepest reads version ${VERSION} of its checkpoints`, String(json.version))
  const { crc32: crc, ...body } = json
  if (crc32(JSON.stringify(body)) !== crc) fail(path, 'the file is corrupt: its checksum does not fit')
  return body as unknown as SavedState
}

/** Checks that every file is there with its size and, with `checksums`, with its checksum. */
export async function verifyFiles(dir: string, saved: SavedState, checksums: boolean, fs: FileSystem): Promise<void> {
  for (const [name, digest] of Object.entries(saved.files)) {
    const path = join(dir, name)
    const info = await fs.info(path).catch((error) => Promise.reject(fileError(path, 'read', error)))
    if (!info) fail(path, 'the file is missing')
    if (info.bytes !== digest.bytes)
      fail(path, `the file is corrupt: it has ${digest.bytes} bytes in a whole checkpoint`, `${info.bytes}`)
    if (checksums && (await fileChecksum(path, digest.bytes, fs)) !== digest.crc32) {
      fail(path, 'the file is corrupt: its checksum does not fit')
    }
  }
}

async function fileChecksum(path: string, bytes: number, fs: FileSystem): Promise<number> {
  try {
    const file = await fs.open(path, 'read')
    try {
      const scratch = new Uint8Array(Math.min(PIECE, bytes))
      let crc = 0
      for (let at = 0; at < bytes; at += PIECE) {
        const piece = scratch.subarray(0, Math.min(PIECE, bytes - at))
        await readFully(path, file, piece, at)
        crc = crc32(piece, crc)
      }
      return crc
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fileError(path, 'read', error)
  }
}
