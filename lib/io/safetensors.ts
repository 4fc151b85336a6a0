import { endianness } from 'node:os'
import { dirname, join } from 'node:path'
import { SteepestError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import { bytesOf } from '../tensor/dtype.js'
import { convert, convertible, FILE_DTYPES, fileDType } from './convert.js'
import { fileError, type FileSystem, nodeFileSystem, type OpenFile } from './files.js'
import { type FileTensor, headerLength, parseHeader } from './header.js'
import { PIECE, readFully, readSmallFile } from './read.js'

export type { FileDType } from './convert.js'
export { type TensorSource, writeSafetensors } from './writer.js'

/** A tensor of an open file; `file` is the shard that holds it. */
export interface StoredTensor extends FileTensor {
  readonly file: string
}

/** An open safetensors file, or all shards of a model as if they were one. */
export interface Safetensors {
  readonly path: string
  readonly metadata: Readonly<Record<string, string>>
  /** In the order of the header. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
  /**
   * Reads a tensor straight into `target` (which may be native memory), row-major, little-endian. With `as`, numbers of
   * another dtype are converted on the way in pieces: F16, F64, BF16, F32, F8 and integers to floats, rounded to nearest
   * even; integers to integers that hold them. `target` has exactly the bytes of the shape in that dtype.
   *
   * @throws SteepestError ARGUMENT, DTYPE, or FORMAT where the file ends too early.
   */
  readInto(name: string, target: Uint8Array, as?: DType): Promise<void>
  /**
   * Reads a tensor piece by piece: `take` gets the bytes of each and where they begin, and must be done with them when it
   * returns. For memory that JavaScript cannot see, with no second copy of the tensor; `as` as in {@link readInto}.
   *
   * @throws SteepestError ARGUMENT, DTYPE, or FORMAT where the file ends too early.
   */
  readPieces(name: string, take: (bytes: Uint8Array, offset: number) => void, as?: DType): Promise<void>
  /**
   * Where the numbers of a tensor lie just as they are in memory: the number of the open file and the place of their first byte. Undefined where they
   * must be converted or moved on the way.
   */
  placeOf(name: string, as: DType): { readonly file: number; readonly offset: number } | undefined
  close(): Promise<void>
}

/** Files have the least byte of a number first. */
const LITTLE = endianness() === 'LE'

class SafetensorsFile implements Safetensors {
  constructor(
    readonly path: string,
    readonly metadata: Readonly<Record<string, string>>,
    readonly tensors: ReadonlyMap<string, StoredTensor>,
    private readonly files: ReadonlyMap<string, OpenFile>,
  ) {}

  private tensor(name: string): StoredTensor {
    const tensor = this.tensors.get(name)
    if (!tensor)
      throw new SteepestError('ARGUMENT', { who: this.path, rule: `there is no tensor ${JSON.stringify(name)} in it` })
    return tensor
  }

  async readInto(name: string, target: Uint8Array, as?: DType): Promise<void> {
    const tensor = this.tensor(name)
    const size = as ? tensor.shape.reduce((n, d) => n * d, bytesOf(as)) : tensor.bytes
    if (target.length !== size) {
      const what = `${as ?? tensor.dtype}[${tensor.shape.join(', ')}]`
      throw new SteepestError('ARGUMENT', {
        who: name,
        rule: `the target holds ${what}, ${size} bytes`,
        got: `${target.length} bytes`,
      })
    }
    if (as && fileDType[as] !== tensor.dtype)
      return this.readPieces(name, (bytes, offset) => target.set(bytes, offset), as)
    try {
      await readFully(tensor.file, this.files.get(tensor.file)!, target, tensor.offset)
    } catch (error) {
      throw fileError(tensor.file, 'read', error)
    }
  }

  async readPieces(name: string, take: (bytes: Uint8Array, offset: number) => void, as?: DType): Promise<void> {
    const tensor = this.tensor(name)
    try {
      await readPieces(this.files.get(tensor.file)!, tensor, take, as)
    } catch (error) {
      throw fileError(tensor.file, 'read', error)
    }
  }

  placeOf(name: string, as: DType): { file: number; offset: number } | undefined {
    const { dtype, offset, file } = this.tensor(name)
    const descriptor = this.files.get(file)?.descriptor
    if (descriptor === undefined || fileDType[as] !== dtype || offset % bytesOf(as) !== 0 || !LITTLE) return undefined
    return { file: descriptor, offset }
  }

  async close(): Promise<void> {
    await closeAll(this.files.values())
  }
}

async function readPieces(
  file: OpenFile,
  tensor: StoredTensor,
  take: (bytes: Uint8Array, offset: number) => void,
  as?: DType,
): Promise<void> {
  const { name, dtype } = tensor
  const converted = as !== undefined && fileDType[as] !== dtype
  if (converted && !convertible(dtype, as))
    throw new SteepestError('DTYPE', { who: name, rule: `a ${dtype} of a file cannot be read as ${as}` })
  const each = FILE_DTYPES[dtype] / 8
  const scratch = new Uint8Array(Math.min(PIECE, tensor.bytes))
  for (let at = 0; at < tensor.bytes; at += PIECE) {
    const piece = scratch.subarray(0, Math.min(PIECE, tensor.bytes - at))
    await readFully(tensor.file, file, piece, tensor.offset + at)
    if (!converted) {
      take(piece, at)
      continue
    }
    let numbers: Uint8Array
    try {
      numbers = convert(piece, dtype, as, at / each)
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      throw new SteepestError('DTYPE', {
        who: `${tensor.file}: ${name}`,
        rule: `every number fits ${as}`,
        got: error.message,
      })
    }
    take(numbers, (at / each) * bytesOf(as))
  }
}

async function closeAll(files: Iterable<OpenFile>): Promise<void> {
  for (const file of files) await file.close().catch(() => undefined)
}

/**
 * Opens a `.safetensors` file, a `.safetensors.index.json` with its shards, or a folder that holds `model.safetensors` or
 * its index, and checks all headers. Nothing but the headers is read.
 *
 * @throws SteepestError FILE where it cannot be read, FORMAT with file, tensor and rule where it is not valid.
 */
export async function openSafetensors(path: string, fs: FileSystem = nodeFileSystem): Promise<Safetensors> {
  const info = await fs.info(path).catch((error) => Promise.reject(fileError(path, 'read', error)))
  if (info?.folder) {
    for (const name of ['model.safetensors', 'model.safetensors.index.json']) {
      if (await fs.info(join(path, name))) return openSafetensors(join(path, name), fs)
    }
    throw new SteepestError('FILE', {
      who: path,
      rule: 'the folder holds model.safetensors or model.safetensors.index.json',
    })
  }
  if (path.endsWith('.json')) return openSharded(path, fs)
  const { file, header } = await openOne(path, fs)
  const tensors = new Map([...header.tensors].map(([name, t]) => [name, { ...t, file: path }]))
  return new SafetensorsFile(path, header.metadata, tensors, new Map([[path, file]]))
}

async function openOne(path: string, fs: FileSystem) {
  let file: OpenFile
  try {
    file = await fs.open(path, 'read')
  } catch (error) {
    throw fileError(path, 'read', error)
  }
  try {
    const bytes = await file.size()
    const first = new Uint8Array(8)
    if (bytes >= 8) await readFully(path, file, first, 0)
    const header = new Uint8Array(headerLength(path, first, bytes))
    await readFully(path, file, header, 8)
    return { file, header: parseHeader(path, header, bytes) }
  } catch (error) {
    await file.close().catch(() => undefined)
    throw fileError(path, 'read', error)
  }
}

async function openSharded(path: string, fs: FileSystem): Promise<Safetensors> {
  const { map, metadata } = await readIndex(path, fs)
  const files = new Map<string, OpenFile>()
  const tensors = new Map<string, StoredTensor>()
  try {
    for (const shard of [...new Set(map.values())].sort()) {
      const shardPath = join(dirname(path), shard)
      if (!(await fs.info(shardPath))) {
        throw new SteepestError('FILE', {
          who: path,
          rule: `the shard ${shard} is missing`,
          fix: 'Copy all shards into the folder of the index',
        })
      }
      const { file, header } = await openOne(shardPath, fs)
      files.set(shardPath, file)
      for (const [name, t] of header.tensors) {
        const named = map.get(name)
        if (named === shard) tensors.set(name, { ...t, file: shardPath })
        else wrongMap(path, name, shard, named ? `the index says ${named}` : 'the index does not name it')
      }
    }
    for (const [name, shard] of map)
      if (!tensors.has(name)) wrongMap(path, name, shard, 'it is not in that shard', true)
    return new SafetensorsFile(
      path,
      metadata,
      new Map([...map.keys()].map((name) => [name, tensors.get(name)!])),
      files,
    )
  } catch (error) {
    await closeAll(files.values())
    throw fileError(path, 'read', error)
  }
}

function wrongMap(path: string, name: string, shard: string, got: string, named = false): never {
  const rule = `the index says ${named ? `that ${JSON.stringify(name)} is in ${shard}` : `where ${JSON.stringify(name)} of ${shard} is`}`
  throw new SteepestError('FORMAT', { who: path, rule, got, fix: 'Index and shards must come from the same save' })
}

async function readIndex(path: string, fs: FileSystem) {
  const fail = (rule: string): never => {
    throw new SteepestError('FORMAT', { who: path, rule, fix: 'The file is damaged or no index of a sharded model' })
  }
  let json: { weight_map?: unknown; metadata?: unknown } | null
  try {
    json = JSON.parse(new TextDecoder().decode(await readSmallFile(path, fs)))
  } catch (error) {
    return error instanceof SyntaxError ? fail('the index is JSON') : Promise.reject(fileError(path, 'read', error))
  }
  const map = json?.weight_map
  if (typeof map !== 'object' || map === null || Array.isArray(map)) return fail('the index has a `weight_map`')
  for (const shard of Object.values(map)) {
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard))
      fail('`weight_map` gives plain .safetensors file names')
  }
  const metadata = Object.entries(json?.metadata ?? {}).map(([key, value]) => [key, String(value)])
  return { map: new Map(Object.entries(map as Record<string, string>)), metadata: Object.fromEntries(metadata) }
}
