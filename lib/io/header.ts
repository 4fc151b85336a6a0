import { SteepestError } from '../errors.js'
import { FILE_DTYPES, type FileDType } from './convert.js'

/** Where a tensor lies in a safetensors file: `offset` counts from the file's first byte. */
export interface FileTensor {
  readonly name: string
  readonly dtype: FileDType
  readonly shape: readonly number[]
  readonly offset: number
  readonly bytes: number
}

/** What the header of a safetensors file says. */
export interface Header {
  readonly metadata: Readonly<Record<string, string>>
  readonly tensors: ReadonlyMap<string, FileTensor>
}

/** The largest header that a file may have, in bytes (the limit of the reference implementation). */
export const MAX_HEADER = 100_000_000

const isRecord = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null && !Array.isArray(x)
const isCount = (x: unknown): x is number => typeof x === 'number' && Number.isSafeInteger(x) && x >= 0
const show = (x: unknown): string => {
  const text = JSON.stringify(x) ?? String(x)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

function bad(path: string, rule: string, got?: string): never {
  throw new SteepestError('FORMAT', {
    who: path,
    rule,
    got,
    fix: 'The file is damaged or no safetensors file: copy it again',
  })
}

/** The length of the header from the first eight bytes. */
export function headerLength(path: string, first: Uint8Array, fileBytes: number): number {
  if (fileBytes < 8)
    bad(path, 'a safetensors file begins with the length of its header in 8 bytes', `a file of ${fileBytes} bytes`)
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true)
  if (length > MAX_HEADER) bad(path, `the header is at most ${MAX_HEADER} bytes`, `a length of ${length}`)
  if (length > fileBytes - 8)
    bad(path, 'the header lies within the file', `a header of ${length} bytes in a file of ${fileBytes}`)
  return Number(length)
}

/**
 * Reads and checks a header: names, dtypes and shapes are valid; the tensors fill the rest of the file without overlap or gap.
 *
 * @throws SteepestError FORMAT that names the file, the tensor and the rule.
 */
export function parseHeader(path: string, header: Uint8Array, fileBytes: number): Header {
  if (header[0] !== 0x7b) bad(path, 'the header begins with {', header.length ? `byte ${header[0]}` : 'an empty header')
  let text: string
  let json: unknown
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(header)
  } catch {
    bad(path, 'the header is UTF-8')
  }
  const deep = tooDeep(text)
  if (deep >= 0) bad(path, `the header is nested at most ${DEEPEST} deep`, `one more at its character ${deep}`)
  try {
    json = JSON.parse(text)
  } catch (error) {
    bad(path, 'the header is JSON', (error as Error).message.slice(0, 120))
  }
  if (!isRecord(json)) bad(path, 'the header is a JSON object')
  const twice = repeatedKey(text)
  if (twice !== undefined) bad(path, 'each name occurs once in the header', `${show(twice)} twice`)

  const start = 8 + header.length
  const tensors = Object.entries(json)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, entry]) => parseTensor(path, name, entry, start, fileBytes - start))
  checkCover(path, tensors, start, fileBytes)
  return { metadata: parseMetadata(path, json.__metadata__), tensors: new Map(tensors.map((t) => [t.name, t])) }
}

function parseMetadata(path: string, metadata: unknown): Record<string, string> {
  if (metadata === undefined) return {}
  if (!isRecord(metadata)) bad(path, '`__metadata__` is an object of strings', show(metadata))
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string')
      bad(path, '`__metadata__` is an object of strings', `${show(value)} for ${show(key)}`)
  }
  return metadata as Record<string, string>
}

function parseTensor(path: string, name: string, entry: unknown, start: number, room: number): FileTensor {
  const failText = (rule: string, got: string): never => bad(path, `tensor ${show(name)}: ${rule}`, got)
  const fail = (rule: string, got: unknown): never => failText(rule, show(got))
  if (!isRecord(entry)) return fail('is described by an object', entry)
  for (const key of Object.keys(entry)) {
    if (!['dtype', 'shape', 'data_offsets'].includes(key))
      fail('has a dtype, a shape and data_offsets, nothing else', key)
  }
  const { dtype, shape, data_offsets: offsets } = entry
  if (typeof dtype !== 'string' || !Object.hasOwn(FILE_DTYPES, dtype)) return fail('the dtype is a known one', dtype)
  if (!Array.isArray(shape) || !shape.every(isCount)) return fail('the shape is a list of non-negative integers', shape)
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    return fail('data_offsets is a list of two non-negative integers', offsets)
  }
  const [begin, end] = offsets as [number, number]
  if (begin > end) fail('data_offsets do not run backwards', offsets)
  if (end > room) fail(`the data lie within the ${room} bytes after the header`, offsets)
  const bits = shape.includes(0) ? 0 : (shape as number[]).reduce((n, d) => n * d, FILE_DTYPES[dtype as FileDType])
  if (bits !== (end - begin) * 8) {
    failText(`${dtype}[${shape.join(', ')}] takes ${bits / 8} bytes`, `${end - begin} bytes at ${show(offsets)}`)
  }
  return { name, dtype: dtype as FileDType, shape, offset: start + begin, bytes: end - begin }
}

function checkCover(path: string, tensors: readonly FileTensor[], start: number, fileBytes: number): void {
  let at = start
  let before = ''
  for (const t of [...tensors].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)) {
    if (t.offset < at) bad(path, `tensors do not overlap`, `${show(before)} and ${show(t.name)}`)
    if (t.offset > at) bad(path, `tensors leave no gap`, `${t.offset - at} unused bytes before ${show(t.name)}`)
    at += t.bytes
    before = t.name
  }
  if (at !== fileBytes)
    bad(path, 'the tensors fill the file to its end', `${fileBytes - at} bytes after the last tensor`)
}

/** The header has tensors, which have shapes, which have numbers. */
const DEEPEST = 3

/** The first place that is nested deeper than a header is; −1 where there is none. What walks a deeper one may run out of stack. */
function tooDeep(text: string): number {
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const c = text[i]
    if (c === '"') for (i++; i < text.length && text[i] !== '"'; i++) if (text[i] === '\\') i++
    if (c === '{' || c === '[') depth++
    else if (c === '}' || c === ']') depth--
    if (depth > DEEPEST) return i
  }
  return -1
}

/** JSON.parse takes the last of two equal keys; a file with two would be read differently elsewhere. */
function repeatedKey(text: string): string | undefined {
  const seen = new Set<string>()
  let depth = 0
  let key = true
  for (let i = 0; i < text.length; i++) {
    const c = text[i]
    if (c === '"') {
      const begin = i
      for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++
      if (depth !== 1 || !key) continue
      const name = JSON.parse(text.slice(begin, i + 1)) as string
      if (seen.has(name)) return name
      seen.add(name)
      key = false
    } else if (c === '{' || c === '[') depth++
    else if (c === '}' || c === ']') depth--
    else if (c === ',' && depth === 1) key = true
  }
  return undefined
}
