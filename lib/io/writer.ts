import { SteepestError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import { type FileDType, fileDType, FILE_DTYPES } from './convert.js'
import { atomicWriteFile, type Digest, type FileSystem, nodeFileSystem } from './files.js'

/** Data that a file is written from. `read` is called once, when its turn comes; what it gives is written as it comes. */
export interface TensorSource {
  readonly name: string
  readonly dtype: DType | FileDType
  readonly shape: readonly number[]
  read(): Promise<Uint8Array> | Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

const byName = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

/**
 * The pieces of a safetensors file. The order is that of Hugging Face's writer (wider elements first, then names), so that
 * the same tensors give the same bytes and every tensor is aligned; the header is filled with spaces to 8 bytes.
 */
export async function* safetensorsChunks(
  who: string,
  sources: Iterable<TensorSource>,
  metadata: Readonly<Record<string, string>> = {},
): AsyncGenerator<Uint8Array> {
  const list = [...sources].map((source) => {
    const dtype: FileDType = source.dtype in fileDType ? fileDType[source.dtype as DType] : (source.dtype as FileDType)
    if (!Object.hasOwn(FILE_DTYPES, dtype)) {
      throw new SteepestError('DTYPE', {
        who,
        rule: `${JSON.stringify(source.name)}: a file cannot hold dtype ${source.dtype}`,
      })
    }
    const bits = source.shape.reduce((n, d) => n * d, FILE_DTYPES[dtype])
    return { source, dtype, bytes: bits / 8, width: FILE_DTYPES[dtype] }
  })
  list.sort((a, b) => b.width - a.width || byName(a.source.name, b.source.name))
  const names = new Set(['__metadata__'])
  const entries: [string, object][] = []
  if (Object.keys(metadata).length) {
    entries.push(['__metadata__', Object.fromEntries(Object.entries(metadata).sort(([a], [b]) => byName(a, b)))])
  }
  let at = 0
  for (const { source, dtype, bytes } of list) {
    if (names.has(source.name)) {
      throw new SteepestError('ARGUMENT', {
        who,
        rule: 'each tensor has a name of its own',
        got: JSON.stringify(source.name),
      })
    }
    names.add(source.name)
    entries.push([source.name, { dtype, shape: source.shape, data_offsets: [at, at + bytes] }])
    at += bytes
  }
  yield headerBytes(entries)
  for (const { source, bytes } of list) yield* checkedData(who, source, bytes)
}

/** Written entry by entry: an object would move names that look like numbers to the front. */
function headerBytes(entries: readonly [string, object][]): Uint8Array {
  const json = Buffer.from(
    `{${entries.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(',')}}`,
  )
  const padded = Math.ceil(json.length / 8) * 8
  const out = Buffer.alloc(8 + padded, 0x20)
  out.writeBigUInt64LE(BigInt(padded), 0)
  json.copy(out, 8)
  return out
}

async function* checkedData(who: string, source: TensorSource, bytes: number): AsyncGenerator<Uint8Array> {
  const data = await source.read()
  let given = 0
  for await (const piece of data instanceof Uint8Array ? [data] : data) {
    given += piece.length
    if (given > bytes) break
    yield piece
  }
  if (given === bytes) return
  throw new SteepestError('ARGUMENT', {
    who,
    rule: `${JSON.stringify(source.name)}: ${source.dtype}[${source.shape.join(', ')}] takes ${bytes} bytes`,
    got: given > bytes ? 'more' : `${given}`,
  })
}

/**
 * Writes a safetensors file as a whole or not at all. One tensor at a time is held; the same tensors and metadata give the
 * same bytes, whatever their order.
 *
 * @throws SteepestError FILE where it cannot be written, ARGUMENT where a source's data do not fit its shape.
 */
export function writeSafetensors(
  path: string,
  sources: Iterable<TensorSource>,
  metadata?: Readonly<Record<string, string>>,
  fs: FileSystem = nodeFileSystem,
): Promise<Digest> {
  return atomicWriteFile(path, safetensorsChunks(path, sources, metadata), fs)
}
