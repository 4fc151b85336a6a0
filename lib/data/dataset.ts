import { basename } from 'node:path'
import { checkOptions, SteepestError } from '../errors.js'
import { defaultCorpus } from './corpus.js'
import { readText } from './text.js'
import { encodeText, type Tokenizer } from './tokenizer.js'
import { byteTokenizer, loadTokenizer, trainBpe } from './tokenizers.js'

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
  readonly tokens: Int32Array
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

async function chooseTokenizer(
  text: string,
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
  const trained = await trainBpe(text.slice(0, SAMPLE), {
    vocabSize: entries,
    signal,
    onProgress: (done) => onProgress?.('learning byte pairs', done),
  })
  const chosen =
    vocab === undefined ? `${trained.vocabSize}: for ${(bytes / 1e6).toPrecision(2)} MB of text` : undefined
  return [trained, `byte pairs, ${trained.vocabSize} entries`, chosen]
}

/**
 * Reads a text and turns it into tokens; the event loop goes on meanwhile.
 *
 * @throws SteepestError FILE or DATA where the text cannot be read or is empty, FORMAT for a tokenizer that is none, OPTION
 */
export async function openText(options: TextOptions = {}): Promise<TextData> {
  checkOptions('openText', options, ['file', 'tokenizer', 'vocab', 'onProgress', 'signal'])
  const { file, signal, onProgress } = options
  const corpus = file === undefined ? defaultCorpus() : undefined
  const text = corpus?.text ?? (await readText(file!))
  const bytes = Buffer.byteLength(text)
  const [tokenizer, tokenizerLine, vocabChosen] = await chooseTokenizer(text, bytes, options)
  const tokens = await encodeText(tokenizer, text, {
    signal,
    onProgress: (done) => onProgress?.('reading the text', done),
  })
  const name = corpus?.name ?? basename(file!)
  return { name, file, bytes, tokenizer, tokenizerLine, vocabChosen, tokens, note: corpus?.note }
}
