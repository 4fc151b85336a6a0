import { tagging, type TagRow } from '../../data/batchers.js'
import { masking, type MaskedRow } from '../../data/masking.js'
import { RowLoader } from '../../data/row-loader.js'
import { surround } from '../../data/surround.js'
import { encodeText, type Tokenizer } from '../../data/tokenizer.js'
import { SteepestError } from '../../errors.js'
import { classNumber, type Classes, type TagExample } from './classes.js'
import type { Rows, RowsOptions } from './rows.js'

/** @internal What was done to rows that were too long, for the plan. */
export const note = (cut: number, context: number, dropped = 0): string[] => [
  ...(cut > 0 ? [`${cut} rows are longer than ${context} tokens and were cut`] : []),
  ...(dropped > 0 ? [`${dropped} of them had nothing left to learn and were left out`] : []),
]

/** The token that words are hidden behind, as the tokenizer's files name it. */
function maskOf(tokenizer: Tokenizer, folder: string): number {
  const files = tokenizer.files()
  const named = ['tokenizer_config.json', 'special_tokens_map.json'].flatMap((name) => {
    const { mask_token: mask } = JSON.parse(files[name] ?? '{}') as { mask_token?: string | { content?: string } }
    const text = typeof mask === 'string' ? mask : mask?.content
    return text === undefined ? [] : [text]
  })
  for (const text of [...named, '[MASK]', '<mask>']) {
    const ids = tokenizer.encode(text)
    if (ids.length === 1) return ids[0]
  }
  throw new SteepestError('DATA', {
    who: folder,
    rule: 'masked-token training needs a tokenizer with a mask token, and this one has none',
    fix: 'Give rows with a `label`, or a folder whose tokenizer.json has [MASK] or <mask>',
  })
}

/** Texts of which some tokens are hidden and told, anew in every epoch. */
export async function maskedRows(
  options: RowsOptions,
  context: number,
  padId: number,
  vocabSize: number,
): Promise<Rows> {
  const { tokenizer, path, folder } = options
  const maskId = maskOf(tokenizer, folder)
  const { before, after } = surround(tokenizer)
  const room = context - before.length - after.length
  const of = async (examples: RowsOptions['train']): Promise<MaskedRow[]> => {
    const out: MaskedRow[] = []
    for (const example of examples) {
      if (example.kind !== 'text') continue
      const ids = await encodeText(tokenizer, example.text)
      for (let at = 0; at < ids.length; at += room) {
        const row = Int32Array.from([...before, ...ids.subarray(at, at + room), ...after])
        out.push({ ids: row, before: before.length, after: after.length, line: example.line })
      }
    }
    return out
  }
  const [train, validation] = [await of(options.train), await of(options.validation)]
  const batcher = (batch: number, seed: number) => masking(batch, { maskId, padId, vocabSize, seed })
  return {
    count: train.length,
    validationCount: validation.length,
    context,
    notes: [],
    loader: ({ batch, accumulate, seed }) =>
      new RowLoader(train, batcher(batch, seed), { accumulate, seed, who: path }),
    evaluation: (batch) => () => RowLoader.once(validation, batcher(batch, 0)),
    preview: (count) =>
      train
        .slice(0, count)
        .map(({ ids, before, after }) => `⟦${tokenizer.decode(ids.subarray(before, ids.length - after))}⟧`),
  }
}

/** Words with a tag each, as rows of tokens. */
export function tagRows(options: RowsOptions, classes: Classes, context: number, padId: number): Rows {
  const { tokenizer, path } = options
  const { before, after } = surround(tokenizer)
  let cut = 0
  const of = (examples: RowsOptions['train']): TagRow[] =>
    examples
      .filter((e): e is TagExample & { line: number } => e.kind === 'tags')
      .map(({ words, tags, line }) => {
        const ids = [...before]
        const labels = before.map(() => -100)
        for (const [i, word] of words.entries()) {
          // A space before the word: where spaces belong to words, every one has its own.
          const tokens = tokenizer.encode(` ${word}`)
          const tag = classNumber(path, line, classes, tags[i])
          if (ids.length + tokens.length + after.length > context) {
            cut++
            break
          }
          tokens.forEach((id, j) => {
            ids.push(id)
            labels.push(j === 0 ? tag : -100)
          })
        }
        const row = {
          ids: Int32Array.from([...ids, ...after]),
          tags: Int32Array.from([...labels, ...after.map(() => -100)]),
        }
        return { ...row, line }
      })
      .filter(({ tags }) => tags.some((tag) => tag >= 0))
  const [train, validation] = [of(options.train), of(options.validation)]
  return {
    count: train.length,
    validationCount: validation.length,
    context,
    notes: note(cut, context),
    loader: ({ batch, accumulate, seed }) =>
      new RowLoader(train, tagging(batch, padId), { accumulate, seed, who: path }),
    evaluation: (batch) => () => RowLoader.once(validation, tagging(batch, padId)),
    preview: (count) =>
      train.slice(0, count).map(({ ids, tags }) => {
        const pieces = [...ids].map(
          (id, i) => tokenizer.decode([id]) + (tags[i] >= 0 ? `⟦${classes.names[tags[i]]}⟧` : ''),
        )
        return pieces.join(' ')
      }),
  }
}
