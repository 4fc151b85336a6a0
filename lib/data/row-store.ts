import { crc32 } from 'node:zlib'
import { Spill, type SpillOptions } from '../io/spill.js'

/** Rows by number, wherever they are. */
export interface RowSource<R> {
  readonly length: number
  /** Tells these rows from others. */
  readonly checksum: number
  /** Tokens of a row, by which rows are packed. */
  size(number: number): number
  read(numbers: readonly number[]): readonly R[] | Promise<readonly R[]>
}

/** How the fields of a row are stored; a row has these alone. */
export type RowFormat<R> = {
  readonly [K in keyof R]-?: R[K] extends Int32Array
    ? 'int32'
    : R[K] extends Uint8Array
      ? 'uint8'
      : R[K] extends readonly number[]
        ? 'numbers'
        : 'number'
}

/** Typed views begin at multiples of it. */
const ALIGNED = 8
const roundUp = (n: number): number => ALIGNED * Math.ceil(n / ALIGNED)
const EACH = { number: 8, numbers: 8, int32: 4, uint8: 1 } as const
const VIEWS = { numbers: Float64Array, int32: Int32Array, uint8: Uint8Array } as const

type Kind = keyof typeof EACH
type Fields = Record<string, number | readonly number[] | Int32Array | Uint8Array>

/** A row as bytes: numbers as float64, arrays as their length and what is in them. */
function encoded(fields: readonly [string, Kind][], row: Fields): Uint8Array {
  let bytes = 0
  for (const [name, kind] of fields) {
    bytes += 8
    if (kind !== 'number') bytes += roundUp((row[name] as ArrayLike<number>).length * EACH[kind])
  }
  const out = new Uint8Array(bytes)
  const { buffer } = out
  let at = 0
  for (const [name, kind] of fields) {
    const value = row[name]
    new Float64Array(buffer, at, 1)[0] = kind === 'number' ? (value as number) : (value as ArrayLike<number>).length
    at += 8
    if (kind === 'number') continue
    const list = value as ArrayLike<number>
    new VIEWS[kind](buffer, at, list.length).set(list)
    at += roundUp(list.length * EACH[kind])
  }
  return out
}

function decoded(fields: readonly [string, Kind][], { buffer, byteOffset }: Uint8Array): Fields {
  const row: Fields = {}
  let at = byteOffset
  for (const [name, kind] of fields) {
    const [n] = new Float64Array(buffer, at, 1)
    at += 8
    if (kind === 'number') {
      row[name] = n
      continue
    }
    const view = new VIEWS[kind](buffer as ArrayBuffer, at, n)
    row[name] = kind === 'numbers' ? [...view] : (view as Int32Array | Uint8Array)
    at += roundUp(n * EACH[kind])
  }
  return row
}

/** Numbers that are appended one by one. */
class Growing<A extends Float64Array | Int32Array> {
  length = 0

  constructor(
    private readonly make: (n: number) => A,
    private list = make(1024),
  ) {}

  push(x: number): void {
    if (this.length === this.list.length) {
      const more = this.make(2 * this.length)
      more.set(this.list)
      this.list = more
    }
    this.list[this.length++] = x
  }

  at(i: number): number {
    return this.list[i]
  }
}

/** Bytes of rows that are kept in memory; with more, all are in a file. */
const IN_MEMORY = 256e6
/** What an array costs beside its bytes. */
const OVERHEAD = 200
/** Rows that are kept to be looked at. */
const FIRST = 8

/** Where rows go that are too many for memory. */
export interface StoreOptions extends SpillOptions {
  /** Bytes of rows that are kept in memory; 256 MB where not given. */
  readonly memory?: number
}

/**
 * Rows that are written one after the other and read by number: in memory, or, where they are more than that, in a file without a name of which memory
 * has the places and sizes alone (12 bytes a row). Both give the same rows.
 */
export class RowStore<R extends object> implements RowSource<R> {
  /** The first rows. */
  readonly first: R[] = []
  /** Tokens of the longest row. */
  longest = 0
  checksum = 0
  private readonly fields: readonly [string, Kind][]
  private memory: Uint8Array[] | undefined = []
  private bytes = 0
  private file: Spill | undefined
  private readonly ends = new Growing((n) => new Float64Array(n))
  private readonly sizes = new Growing((n) => new Int32Array(n))

  /** @param sizeOf tokens of a row */
  constructor(
    format: RowFormat<R>,
    private readonly sizeOf: (row: R) => number,
    private readonly options: StoreOptions = {},
  ) {
    this.fields = Object.entries(format) as [string, Kind][]
  }

  get length(): number {
    return this.sizes.length
  }

  /** Whether the rows are in a file. */
  get spilled(): boolean {
    return this.file !== undefined
  }

  size(number: number): number {
    return this.sizes.at(number)
  }

  async push(row: R): Promise<void> {
    const bytes = encoded(this.fields, row as Fields)
    const size = this.sizeOf(row)
    if (this.length < FIRST) this.first.push(row)
    this.longest = Math.max(this.longest, size)
    this.checksum = crc32(bytes, this.checksum)
    this.sizes.push(size)
    this.bytes += bytes.length
    this.ends.push(this.bytes)
    if (this.file) return this.file.append(bytes)
    this.memory!.push(bytes)
    if (this.bytes + OVERHEAD * this.length <= (this.options.memory ?? IN_MEMORY)) return
    this.file = await Spill.open(this.options)
    for (const kept of this.memory!) await this.file.append(kept)
    this.memory = undefined
  }

  /** After the last row, before one is read. */
  async end(): Promise<this> {
    await this.file?.flush()
    return this
  }

  read(numbers: readonly number[]): R[] | Promise<R[]> {
    const of = (bytes: Uint8Array) => decoded(this.fields, bytes) as R
    if (this.memory) return numbers.map((n) => of(this.memory![n]))
    return Promise.all(
      numbers.map(async (n) => {
        const begin = n === 0 ? 0 : this.ends.at(n - 1)
        const bytes = new Uint8Array(this.ends.at(n) - begin)
        await this.file!.read(bytes, begin)
        return of(bytes)
      }),
    )
  }

  /** Gives memory and disk back. */
  async close(): Promise<void> {
    this.memory = []
    await this.file?.close()
  }
}

/** Rows of a list. */
export function listed<R>(rows: readonly R[], sizeOf: (row: R) => number = () => 1): RowSource<R> {
  return {
    length: rows.length,
    checksum: crc32(JSON.stringify([rows.length, rows.at(0), rows.at(-1)])),
    size: (n) => sizeOf(rows[n]),
    read: (numbers) => numbers.map((n) => rows[n]),
  }
}
