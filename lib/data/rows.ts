import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { extname } from 'node:path'
import { SteepestError } from '../errors.js'
import { textParts } from './text.js'

/** One record of a data file. */
export interface Row {
  readonly fields: Readonly<Record<string, unknown>>
  /** Where it stands in the file, from 1: its line, or its number where the file has no lines. */
  readonly line: number
  /** Whether the text of the row goes on in the next. */
  readonly more?: boolean
}

/** Longest line of a text format, in bytes. */
const LONGEST = 32 << 20

/** Where a row is, for messages. */
export const rowName = (path: string, line: number): string => `${path}, line ${line}`

function fail(path: string, line: number, rule: string, got?: string): never {
  throw new SteepestError('DATA', { who: rowName(path, line), rule, got })
}

/** The lines of a UTF-8 file, one at a time. */
async function* lines(path: string): AsyncGenerator<[text: string, line: number]> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let rest: Buffer[] = []
  let length = 0
  let line = 0
  const text = (bytes: Buffer): string => {
    try {
      return decoder.decode(bytes).replace(/\r$/, '')
    } catch {
      return fail(path, line, 'the file must be UTF-8', 'bytes that are no character')
    }
  }
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      line++
      yield [text(Buffer.concat([...rest, chunk.subarray(from, at)])), line]
      rest = []
      length = 0
      from = at + 1
    }
    rest.push(chunk.subarray(from))
    length += chunk.length - from
    if (length > LONGEST)
      fail(path, line + 1, `a line must not be longer than ${LONGEST >> 20} MiB`, `more than ${length >> 20} MiB`)
  }
  if (length > 0) {
    line++
    yield [text(Buffer.concat(rest)), line]
  }
}

async function* jsonLines(path: string): AsyncGenerator<Row> {
  for await (const [text, line] of lines(path)) {
    if (text.trim() === '') continue
    let fields: unknown
    try {
      fields = JSON.parse(text)
    } catch (error) {
      fail(path, line, 'must be a JSON object', (error as Error).message.slice(0, 80))
    }
    if (typeof fields !== 'object' || fields === null || Array.isArray(fields))
      fail(path, line, 'must be a JSON object', text.slice(0, 40))
    yield { fields: fields as Row['fields'], line }
  }
}

function distinct(path: string, names: string[]): string[] {
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice === undefined) return names
  return fail(path, 1, 'every column must have a name of its own', `two of the name ${JSON.stringify(twice)}`)
}

async function* separated(path: string, delimiter: string): AsyncGenerator<Row> {
  const { parse } = await import('csv-parse')
  const parser = createReadStream(path).pipe(
    parse({
      columns: (names: string[]) => distinct(path, names),
      info: true,
      bom: true,
      delimiter,
      skip_empty_lines: true,
    }),
  )
  try {
    for await (const { record, info } of parser as AsyncIterable<{ record: Row['fields']; info: { lines: number } }>)
      yield { fields: record, line: info.lines }
  } catch (error) {
    if (error instanceof SteepestError) throw error
    const { lines: line, message } = error as { lines?: number; message: string }
    fail(path, line ?? 1, 'every row must have the columns of the first line', message.slice(0, 120))
  }
}

/** What of a group of rows is in memory at once. */
const PART_BYTES = 64e6
const PART_ROWS = 1 << 16

async function* parquet(path: string): AsyncGenerator<Row> {
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } = await import('hyparquet')
  const file = await asyncBufferFromFile(path)
  let metadata: Awaited<ReturnType<typeof parquetMetadataAsync>>
  try {
    metadata = await parquetMetadataAsync(file)
  } catch (error) {
    throw new SteepestError(
      'FORMAT',
      { who: path, rule: 'must be a parquet file', got: (error as Error).message.slice(0, 120) },
      { cause: error },
    )
  }
  let row = 0
  for (const group of metadata.row_groups) {
    const end = row + Number(group.num_rows)
    // A group has a million rows as some write it: so many at a time as memory is nothing to.
    const parts = Math.ceil(Math.max(Number(group.total_byte_size) / PART_BYTES, Number(group.num_rows) / PART_ROWS))
    const step = Math.ceil(Number(group.num_rows) / Math.max(1, parts))
    while (row < end) {
      const rowEnd = Math.min(end, row + step)
      for (const fields of await parquetReadObjects({ file, metadata, rowStart: row, rowEnd })) {
        row++
        const plain = Object.entries(fields).map(([k, v]) => [k, typeof v === 'bigint' ? Number(v) : v])
        yield { fields: Object.fromEntries(plain), line: row }
      }
      if (row !== rowEnd)
        throw new SteepestError('FORMAT', {
          who: path,
          rule: 'every group must have the rows that the file says it has',
          got: `${row} rows for ${rowEnd}`,
        })
    }
  }
}

/** A text is cut into about so many rows, so that some can be held back to validate on; their sizes in characters. */
const TEXT_ROWS = 64
const [SHORTEST, LONGEST_TEXT] = [1 << 10, 1 << 16]

/** A text as rows that end at line ends, where it has some. */
async function* whole(path: string): AsyncGenerator<Row> {
  const { size: bytes } = await stat(path)
  const size = Math.min(LONGEST_TEXT, Math.max(SHORTEST, Math.ceil(bytes / TEXT_ROWS)))
  let rest = ''
  let line = 1
  const row = (text: string, more: boolean): Row => {
    const at = line
    for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) line++
    return { fields: { text }, line: at, ...(more ? { more } : {}) }
  }
  for await (const part of textParts(path)) {
    // A carriage return at the end waits for its line feed.
    rest = `${rest}${part}`.replaceAll('\r\n', '\n')
    let begin = 0
    for (let end = lineEnd(rest, begin, size); end < rest.length; end = lineEnd(rest, begin, size)) {
      yield row(rest.slice(begin, end), true)
      begin = end
    }
    rest = rest.slice(begin)
  }
  yield row(rest.replace(/\n$/, ''), false)
}

/** Where a piece of `size` characters or somewhat more ends: after a line, else after a space, else between two characters; the end of the text where it is not sure yet. */
function lineEnd(text: string, begin: number, size: number): number {
  const least = begin + size
  const most = least + size
  if (text.length <= most) return text.length
  for (const sign of ['\n', ' ']) {
    const at = text.indexOf(sign, least)
    if (at >= 0 && at < most) return at + 1
  }
  const [low, high] = [0xdc00, 0xdfff]
  const code = text.charCodeAt(most)
  return code >= low && code <= high ? most - 1 : most
}

const READERS: Readonly<Record<string, (path: string) => AsyncGenerator<Row>>> = {
  '.jsonl': jsonLines,
  '.ndjson': jsonLines,
  '.csv': (path) => separated(path, ','),
  '.tsv': (path) => separated(path, '\t'),
  '.parquet': parquet,
  '.txt': whole,
  '.md': whole,
}

/**
 * The records of a data file, read as they are asked for: `.jsonl` (`.ndjson`), `.csv`, `.tsv`, `.parquet`; a `.txt` or `.md` is one text in pieces.
 *
 * @throws SteepestError FILE, FORMAT, or DATA that names the line
 */
export async function* readRows(path: string): AsyncGenerator<Row> {
  const info = await stat(path).catch(() => undefined)
  if (!info?.isFile()) {
    throw new SteepestError('FILE', {
      who: path,
      rule: 'the data must be a file',
      got: info ? 'a folder' : 'nothing of that name',
      fix: 'Check the path',
    })
  }
  if (info.size === 0) throw new SteepestError('DATA', { who: path, rule: 'the file is empty' })
  const reader = READERS[extname(path).toLowerCase()]
  if (!reader) {
    throw new SteepestError('FORMAT', {
      who: path,
      rule: `steepest reads ${Object.keys(READERS).join(', ')}`,
      got: extname(path) || 'no extension',
    })
  }
  yield* reader(path)
}
