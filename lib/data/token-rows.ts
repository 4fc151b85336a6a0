import { SteepestError } from '../errors.js'
import type { ChatTemplate } from './chat.js'
import type { Placed } from './examples.js'
import type { RowFormat } from './row-store.js'
import { rowName } from './rows.js'
import { encodeText, type Tokenizer } from './tokenizer.js'

/** A document as tokens, with what of it is learned. */
export interface TokenRow {
  readonly ids: Int32Array
  /** 1 where the token is to be predicted. */
  readonly learned: Uint8Array
  readonly line: number
}

/** How examples become tokens. */
export interface TokenRowOptions {
  readonly tokenizer: Tokenizer
  readonly template?: ChatTemplate
  /** Longest row. */
  readonly context: number
  /** Learn prompts too; false by default. */
  readonly learnPrompts?: boolean
}

/** What was done to rows that were too long. */
export interface Shortened {
  /** Rows that were cut at the end. */
  cut: number
  /** Rows of whose answer nothing was left. */
  dropped: number
}

/** Pieces of an example's text, and whether each is learned. */
function piecesOf(
  example: Placed,
  path: string,
  { template, tokenizer }: TokenRowOptions,
): { text: string; learned: boolean }[] {
  switch (example.kind) {
    case 'text':
      return [{ text: example.text, learned: true }]
    case 'pair':
      return [
        { text: example.prompt, learned: false },
        // A space between question and answer, so that the first word of an answer is one that the vocabulary has.
        {
          text:
            /\s$/.test(example.prompt) || /^\s/.test(example.completion)
              ? example.completion
              : ` ${example.completion}`,
          learned: true,
        },
      ]
    case 'chat':
      if (template) return template.pieces(example.messages)
      throw new SteepestError('DATA', {
        who: path,
        rule: 'conversations need the chat template of the model, and its folder has none',
        got: `${tokenizer.vocabSize} tokens, no chat_template`,
        fix: 'Give the data as `prompt` and `completion`, or put a chat_template.jinja into the folder',
      })
    case 'label':
    case 'tags':
      throw new SteepestError('DATA', {
        who: rowName(path, example.line),
        rule: 'rows with a label are for models that classify',
        fix: 'Give them as `prompt` and `completion`, or name a model such as BERT',
      })
  }
}

/** @internal How rows of tokens are stored. */
export const TOKEN_ROW: RowFormat<TokenRow> = { ids: 'int32', learned: 'uint8', line: 'number' }

/** Makes rows of examples for a model that predicts the next token. The end of a text is learned where the tokenizer has a token for it. */
export class TokenRows {
  readonly shortened: Shortened = { cut: 0, dropped: 0 }

  constructor(private readonly options: TokenRowOptions) {}

  /**
   * The rows of an example of a file: several where a text is longer than the context, none where nothing is left to learn.
   *
   * @throws SteepestError DATA where the model does not learn such examples
   */
  async of(example: Placed, path: string): Promise<TokenRow[]> {
    const { tokenizer, context, learnPrompts = false } = this.options
    const ids: number[] = []
    const learned: number[] = []
    for (const piece of piecesOf(example, path, this.options)) {
      const tokens = example.kind === 'text' ? await encodeText(tokenizer, piece.text) : tokenizer.encode(piece.text)
      for (const id of tokens) {
        ids.push(id)
        learned.push(Number(piece.learned || learnPrompts))
      }
    }
    // A template ends its turns itself, and a text ends with its last piece.
    const ends = example.kind !== 'chat' && !(example.kind === 'text' && example.more)
    if (ends && tokenizer.endOfText !== undefined) {
      ids.push(tokenizer.endOfText)
      learned.push(1)
    }
    // A long text is several rows; an answer is cut.
    const step = example.kind === 'text' ? context : Number.POSITIVE_INFINITY
    const rows: TokenRow[] = []
    for (let at = 0; at < ids.length; at += step) {
      const end = Math.min(ids.length, at + context)
      const row = {
        ids: Int32Array.from(ids.slice(at, end)),
        learned: Uint8Array.from(learned.slice(at, end)),
        line: example.line,
      }
      if (example.kind !== 'text' && ids.length > context) this.shortened.cut++
      // The first token of a row is not predicted by anything.
      if (row.learned.subarray(1).includes(1)) rows.push(row)
      else if (example.kind !== 'text') this.shortened.dropped++
    }
    return rows
  }
}
