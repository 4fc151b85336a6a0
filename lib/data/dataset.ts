import { basename } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { checkOptions, SteepestError } from '../errors.js'
import { nodeFileSystem } from '../io/files.js'
import { defaultCorpus } from './corpus.js'
import { TextPieces } from './bytelevel.js'
import { textParts } from './text.js'
import type { Tokenizer } from './tokenizer.js'
import { byteTokenizer, loadTokenizer, trainBpe } from './tokenizers.js'
import { TokenStore, type TokenStoreOptions, type Tokens } from './tokens.js'

/** Which text, and how it becomes tokens. */
export interface TextOptions {
  /** A text file; where not given, text that is on this machine. */
  readonly file?: string
  /** `bytes`, or the path of a `tokenizer.json`; byte pairs trained on the text where not given. */
  readonly tokenizer?: string
  /** Entries of the tokenizer that is trained, from 257 on; by the size of the text where not given. */
  readonly vocab?: number
  /** Called now and then with what is being done and the share that is done, 0 to 1. */
  readonly onProgress?: (what: string, done: number) => void
  readonly signal?: AbortSignal
  /** Where tokens go that are too many for memory. */
  readonly storage?: TokenStoreOptions
}

/** A text as tokens. */
export interface TextData {
  /** What it is, for people: the file's name. */
  readonly name: string
  /** Where it came from; absent for text that is on this machine. */
  readonly file?: string
  /** Bytes of the text as UTF-8. */
  readonly bytes: number
  readonly tokenizer: Tokenizer
  /** The tokenizer in one line, for example `byte pairs, 2048 entries`. */
  readonly tokenizerLine: string
  /** Why `vocab` is what it is, where steepest chose it. */
  readonly vocabChosen?: string
  /** In memory, or, where they are more than 67 million, in a file without a name. */
  readonly tokens: Tokens
  /** Why the text is not the default one, where it should have been. */
  readonly note?: string
}

/** Bytes of text from which a vocabulary of so many entries pays: each entry should occur some hundred times. */
const VOCABS: readonly (readonly [bytes: number, entries: number])[] = [
  [0, 257],
  [30_000, 512],
  [300_000, 1024],
  [1_500_000, 2048],
  [20_000_000, 8192],
  [200_000_000, 16_384],
]

/** Text that a tokenizer is trained on at most; more takes longer and changes nothing that matters. */
const SAMPLE = 50_000_000

/** The vocabulary that steepest chooses for a text. */
export function vocabFor(bytes: number): number {
  return VOCABS.findLast(([least]) => bytes >= least)![1]
}

/** @param text a beginning of the text, to learn byte pairs on */
async function chooseTokenizer(
  text: () => Promise<string>,
  bytes: number,
  options: TextOptions,
): Promise<[Tokenizer, line: string, chosen?: string]> {
  const { tokenizer, vocab, signal, onProgress } = options
  if (tokenizer !== undefined && tokenizer !== 'bytes') {
    if (vocab !== undefined) {
      throw new SteepestError('OPTION', {
        who: 'vocab',
        rule: 'is the size of a tokenizer that is trained, and one was given',
        got: tokenizer,
        fix: 'Leave out one of the two',
      })
    }
    const loaded = await loadTokenizer(tokenizer)
    return [loaded, `${basename(tokenizer)}, ${loaded.vocabSize} entries`]
  }
  const entries = vocab ?? vocabFor(bytes)
  if (tokenizer === 'bytes' || entries === 257)
    return [
      byteTokenizer(),
      'bytes, 257 entries',
      vocab === undefined && tokenizer === undefined ? '257: the text is too short for byte pairs' : undefined,
    ]
  const trained = await trainBpe(await text(), {
    vocabSize: entries,
    signal,
    onProgress: (done) => onProgress?.('learning byte pairs', done),
  })
  const chosen =
    vocab === undefined ? `${trained.vocabSize}: for ${(bytes / 1e6).toPrecision(2)} MB of text` : undefined
  return [trained, `byte pairs, ${trained.vocabSize} entries`, chosen]
}

/** The beginning of a text that comes in parts. */
async function beginning(parts: AsyncIterable<string> | Iterable<string>): Promise<string> {
  let text = ''
  for await (const part of parts) {
    text += part
    if (text.length >= SAMPLE) break
  }
  return text.slice(0, SAMPLE)
}

/** Characters of a piece where a tokenizer may put something at its beginning: few pieces. */
const LONG_PIECE = 1 << 22

/** Pieces of a text that are encoded one by one. */
async function* piecesOf(
  parts: AsyncIterable<string> | Iterable<string>,
  { cuttable }: Tokenizer,
): AsyncGenerator<string> {
  const pieces = cuttable ? new TextPieces() : new TextPieces(LONG_PIECE)
  for await (const part of parts) yield* pieces.push(part)
  yield* pieces.end()
}

/**
 * Reads a text and turns it into tokens, piece by piece; the event loop goes on meanwhile. A text may be larger than memory.
 *
 * @throws SteepestError FILE or DATA where the text cannot be read or is empty, FORMAT for a tokenizer that is none, OPTION
 */
export async function openText(options: TextOptions = {}): Promise<TextData> {
  checkOptions('openText', options, ['file', 'tokenizer', 'vocab', 'onProgress', 'signal', 'storage'])
  const { file, signal, onProgress, storage } = options
  const corpus = file === undefined ? defaultCorpus() : undefined
  const parts = () => (corpus ? [corpus.text] : textParts(file!))
  const bytes = corpus ? Buffer.byteLength(corpus.text) : ((await nodeFileSystem.info(file!))?.bytes ?? 0)
  const [tokenizer, tokenizerLine, vocabChosen] = await chooseTokenizer(() => beginning(parts()), bytes, options)
  const store = new TokenStore(storage)
  try {
    let done = 0
    for await (const piece of piecesOf(parts(), tokenizer)) {
      signal?.throwIfAborted()
      await store.push(tokenizer.encode(piece))
      done += Buffer.byteLength(piece)
      onProgress?.('reading the text', done / bytes)
      await setImmediate()
    }
    const tokens = await store.end()
    const name = corpus?.name ?? basename(file!)
    return { name, file, bytes, tokenizer, tokenizerLine, vocabChosen, tokens, note: corpus?.note }
  } catch (error) {
    await store.close()
    throw error
  }
}
