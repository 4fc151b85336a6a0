import { tagging, type TagRow } from '../../data/batchers.js'
import { masking, type MaskedRow } from '../../data/masking.js'
import { type Parted, storeRows } from '../../data/parts.js'
import type { RowFormat } from '../../data/row-store.js'
import { surround } from '../../data/surround.js'
import { encodeText, type Tokenizer } from '../../data/tokenizer.js'
import { SteepestError } from '../../errors.js'
import { classNumber, type Classes } from './classes.js'
import { note, type Rows, type RowsOptions, storedRows } from './stored-rows.js'

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

const MASKED_ROW: RowFormat<MaskedRow> = { ids: 'int32', before: 'number', after: 'number', line: 'number' }
const TAG_ROW: RowFormat<TagRow> = { ids: 'int32', tags: 'int32', line: 'number' }
const sizeOf = ({ ids }: { ids: Int32Array }): number => ids.length

/** Texts of which some tokens are hidden and told, anew in every epoch. */
export async function maskedRows(
  options: RowsOptions,
  context: number,
  padId: number,
  vocabSize: number,
): Promise<Rows> {
  const { tokenizer, parts, folder } = options
  const maskId = maskOf(tokenizer, folder)
  const { before, after } = surround(tokenizer)
  const room = context - before.length - after.length
  const rows = await storeRows(
    parts,
    MASKED_ROW,
    sizeOf,
    async ({ example }) => {
      const out: MaskedRow[] = []
      if (example.kind !== 'text') return out
      const ids = await encodeText(tokenizer, example.text)
      for (let at = 0; at < ids.length; at += room) {
        const row = Int32Array.from([...before, ...ids.subarray(at, at + room), ...after])
        out.push({ ids: row, before: before.length, after: after.length, line: example.line })
      }
      return out
    },
    options.storage,
  )
  return storedRows(options, rows, {
    context,
    notes: [],
    batcher: (batch, seed) => masking(batch, { maskId, padId, vocabSize, seed }),
    show: ({ ids, before, after }) => `⟦${tokenizer.decode(ids.subarray(before, ids.length - after))}⟧`,
  })
}

/** Words with a tag each, as rows of tokens. */
export async function tagRows(options: RowsOptions, classes: Classes, context: number, padId: number): Promise<Rows> {
  const { tokenizer, parts } = options
  const { before, after } = surround(tokenizer)
  let cut = 0
  const rowsOf = ({ example, path }: Parted): TagRow[] => {
    if (example.kind !== 'tags') return []
    const { words, tags, line } = example
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
      line,
    }
    return row.tags.some((tag) => tag >= 0) ? [row] : []
  }
  const rows = await storeRows(parts, TAG_ROW, sizeOf, rowsOf, options.storage)
  return storedRows(options, rows, {
    context,
    notes: note(cut, context),
    batcher: (batch) => tagging(batch, padId),
    show({ ids, tags }) {
      const pieces = [...ids].map(
        (id, i) => tokenizer.decode([id]) + (tags[i] >= 0 ? `⟦${classes.names[tags[i]]}⟧` : ''),
      )
      return pieces.join(' ')
    },
  })
}
