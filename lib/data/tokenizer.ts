import { setImmediate } from 'node:timers/promises'
import { join } from 'node:path'
import { atomicWriteFile, nodeFileSystem } from '../io/files.js'
import { textPieces } from './bytelevel.js'

/** How text is turned into tokens. */
export interface EncodeOptions {
  /** Adds what the tokenizer puts around a text ([CLS], <s>, …); false where not given. */
  readonly addSpecialTokens?: boolean
}

/** How tokens are turned into text. */
export interface DecodeOptions {
  /** Leaves special tokens out of the text; false where not given. */
  readonly skipSpecial?: boolean
}

/** Decodes token by token. A character comes as soon as its last byte is there, never in halves. */
export interface StreamDecoder {
  /** The text that this token completes; often empty. */
  push(id: number): string
  /** What is left at the end; bytes that are no character come as U+FFFD. */
  end(): string
}

/** Turns text into token ids and back. */
export interface Tokenizer {
  /** Ids are in [0, vocabSize). */
  readonly vocabSize: number
  /** Id of the token that ends a document, if there is one. */
  readonly endOfText: number | undefined
  /** Whether text may be cut at plain line ends and encoded piece by piece with the same result; see `textPieces`. */
  readonly cuttable: boolean
  encode(text: string, options?: EncodeOptions): Int32Array
  /** An id that is not in the vocabulary becomes U+FFFD: a model's vocabulary may be padded. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string
  decodeStream(options?: DecodeOptions): StreamDecoder
  /** The files that make the tokenizer, by name: `tokenizer.json` and what belongs to it. */
  files(): Readonly<Record<string, string>>
  /** Writes `files()` into a folder. */
  save(dir: string): Promise<void>
}

/** Writes a tokenizer's files into a folder. */
export async function saveTokenizer(tokenizer: Pick<Tokenizer, 'files'>, dir: string): Promise<void> {
  await nodeFileSystem.makeFolder(dir)
  for (const [name, content] of Object.entries(tokenizer.files())) await atomicWriteFile(join(dir, name), content)
}

/**
 * Encodes a long text without holding up the event loop, where the tokenizer allows it to be cut.
 * `onProgress` gets the share that is done, 0 to 1.
 */
export async function encodeText(
  tokenizer: Tokenizer,
  text: string,
  options: { readonly onProgress?: (done: number) => void; readonly signal?: AbortSignal } = {},
): Promise<Int32Array> {
  const parts: Int32Array[] = []
  let done = 0
  for (const piece of tokenizer.cuttable ? textPieces(text) : [text]) {
    options.signal?.throwIfAborted()
    parts.push(tokenizer.encode(piece))
    done += piece.length
    options.onProgress?.(done / text.length)
    await setImmediate()
  }
  const out = new Int32Array(parts.reduce((n, p) => n + p.length, 0))
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}
