import { crc32 } from 'node:zlib'
import { Spill, type SpillOptions } from '../io/spill.js'

/** Tokens of a text: in memory, or in a file. */
export type Tokens = Int32Array | StoredTokens

const BYTES = 4
/** Tokens that are read at once where all are. */
const PIECE = 1 << 20

/** Tokens in a file, of which a part is read where it is asked for. */
export class StoredTokens {
  /** @internal Use a `TokenStore`. */
  constructor(
    private readonly file: Spill,
    private readonly begin: number,
    readonly length: number,
  ) {}

  /** A part; nothing is copied. */
  subarray(begin: number, end = this.length): StoredTokens {
    const [from, to] = [begin, end].map((at) => Math.min(this.length, Math.max(0, at < 0 ? this.length + at : at)))
    return new StoredTokens(this.file, this.begin + from, Math.max(0, to - from))
  }

  /** Fills `target` with the tokens from a place on. */
  read(begin: number, target: Int32Array): Promise<void> {
    const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength)
    return this.file.read(bytes, BYTES * (this.begin + begin))
  }

  /** Gives the disk back, for all parts. */
  close(): Promise<void> {
    return this.file.close()
  }
}

/** Fills `target` with tokens from a place on; those of a file are there when the promise is. */
export function copyTokens(tokens: Tokens, begin: number, target: Int32Array): Promise<void> | undefined {
  if (tokens instanceof StoredTokens) return tokens.read(begin, target)
  target.set(tokens.subarray(begin, begin + target.length))
  return undefined
}

const asBytes = ({ buffer, byteOffset, byteLength }: Int32Array) => new Uint8Array(buffer, byteOffset, byteLength)

/** Tells the tokens of a text from others. */
export async function tokensChecksum(pieces: readonly Tokens[]): Promise<number> {
  let crc = 0
  for (const piece of pieces) {
    if (piece instanceof Int32Array) {
      crc = crc32(asBytes(piece), crc)
      continue
    }
    for (let at = 0; at < piece.length; at += PIECE) {
      const part = new Int32Array(Math.min(PIECE, piece.length - at))
      await piece.read(at, part)
      crc = crc32(asBytes(part), crc)
    }
  }
  return crc
}

/** Tokens that are kept in memory; with more, all are in a file. */
const IN_MEMORY = 1 << 26

/** Where tokens go that are too many for memory. */
export interface TokenStoreOptions extends SpillOptions {
  /** Tokens that are kept in memory; 67,108,864 (256 MiB) where not given. */
  readonly most?: number
}

/** Takes tokens piece by piece, and has them in memory or, where they are too many, in a file without a name. */
export class TokenStore {
  length = 0
  private parts: Int32Array[] = []
  private file: Spill | undefined

  constructor(private readonly options: TokenStoreOptions = {}) {}

  /** @throws SteepestError FILE, where the disk is full for example */
  async push(tokens: Int32Array): Promise<void> {
    this.length += tokens.length
    if (this.file) return this.file.append(asBytes(tokens))
    this.parts.push(tokens)
    if (this.length <= (this.options.most ?? IN_MEMORY)) return
    this.file = await Spill.open(this.options)
    for (const part of this.parts) await this.file.append(asBytes(part))
    this.parts = []
  }

  /** All tokens. */
  async end(): Promise<Tokens> {
    if (this.file) {
      await this.file.flush()
      return new StoredTokens(this.file, 0, this.length)
    }
    const all = new Int32Array(this.length)
    let at = 0
    for (const part of this.parts.splice(0)) {
      all.set(part, at)
      at += part.length
    }
    return all
  }

  /** Gives the disk back where not all could be taken. */
  async close(): Promise<void> {
    await this.file?.close()
  }
}
