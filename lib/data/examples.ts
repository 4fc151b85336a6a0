import { nearest, SteepestError } from '../errors.js'
import { readRows, type Row, rowName } from './rows.js'

/** One turn of a conversation. */
export interface Message {
  readonly role: string
  readonly content: string
}

/** What a row of data asks a model to learn. */
export type Example =
  /** With `more`, a piece of a text that goes on in the next row. */
  | { readonly kind: 'text'; readonly text: string; readonly more?: boolean }
  | { readonly kind: 'pair'; readonly prompt: string; readonly completion: string }
  | { readonly kind: 'chat'; readonly messages: readonly Message[] }
  | { readonly kind: 'label'; readonly text: string; readonly second?: string; readonly label: Label }
  | { readonly kind: 'tags'; readonly words: readonly string[]; readonly tags: readonly (string | number)[] }

/** A class by name or number, several of them, or a number. */
export type Label = string | number | readonly (string | number)[]

/** A row with the place that it came from. */
export type Placed = Example & { readonly line: number }

/** Names of columns that mean the same. */
const NAMES = {
  messages: ['messages', 'conversations'],
  prompt: ['prompt', 'instruction', 'question'],
  completion: ['completion', 'response', 'output', 'answer'],
  text: ['text', 'sentence', 'sentence1', 'premise', 'content'],
  second: ['sentence2', 'text2', 'hypothesis', 'second'],
  label: ['label', 'labels', 'class'],
  words: ['tokens', 'words'],
  tags: ['ner_tags', 'tags', 'pos_tags', 'chunk_tags', 'labels'],
} as const
type Part = keyof typeof NAMES

const column = (fields: Row['fields'], part: Part): string | undefined =>
  NAMES[part].find((name) => fields[name] != null)

function kindOf(path: string, { fields, line }: Row): Example['kind'] {
  const has = (part: Part) => column(fields, part) !== undefined
  if (has('messages')) return 'chat'
  if (has('prompt') && has('completion')) return 'pair'
  if (has('words') && has('tags')) return 'tags'
  if (has('text') && has('label')) return 'label'
  if (has('text')) return 'text'
  const known: readonly string[] = Object.values(NAMES).flat()
  const near = Object.keys(fields)
    .filter((name) => !known.includes(name))
    .map((name) => nearest(name, known))
    .find(Boolean)
  throw new SteepestError('DATA', {
    who: rowName(path, line),
    rule: 'a row must have `text`, `prompt` and `completion`, `messages`, `text` and `label`, or `tokens` and `tags`',
    got: Object.keys(fields).join(', ') || 'nothing',
    fix: near ? `Did you mean \`${near}\`?` : 'Rename or add the columns',
  })
}

function reader(path: string, kind: Example['kind']): (row: Row) => Placed {
  return ({ fields, line, more }) => {
    const fail = (rule: string, got: unknown): never => {
      throw new SteepestError('DATA', {
        who: rowName(path, line),
        rule,
        got: typeof got === 'string' ? JSON.stringify(got.slice(0, 40)) : String(JSON.stringify(got)).slice(0, 60),
      })
    }
    const text = (part: Part): string => {
      const name = column(fields, part)
      const value = name === undefined ? undefined : fields[name]
      if (typeof value === 'string') return value
      return fail(`\`${name ?? NAMES[part][0]}\` must be a text, as in the rows before`, value)
    }
    switch (kind) {
      case 'text':
        return { kind, text: text('text'), line, ...(more ? { more } : {}) }
      case 'pair': {
        const completion = text('completion')
        if (completion.trim() === '') fail('the answer must not be empty', completion)
        // Of instruction data some have what the instruction is about in a column of its own.
        const about = typeof fields.input === 'string' && fields.input !== '' ? `\n\n${fields.input}` : ''
        return { kind, prompt: text('prompt') + about, completion, line }
      }
      case 'chat': {
        const given = fields[column(fields, 'messages') ?? '']
        const isTurn = (m: unknown): m is Message =>
          typeof (m as Message)?.role === 'string' && typeof (m as Message).content === 'string'
        if (!Array.isArray(given) || !given.every(isTurn))
          return fail('`messages` must be a list of { role, content }', given)
        if (!given.some((m) => m.role === 'assistant' && m.content.trim() !== ''))
          fail(
            'a conversation must have an answer of the role `assistant`',
            given.map((m) => m.role),
          )
        return { kind, messages: given, line }
      }
      case 'tags': {
        const list = (part: Part, of: (x: unknown) => boolean, what: string): unknown[] => {
          const given = fields[column(fields, part) ?? '']
          // A table has no lists: its words stand with spaces between.
          const all: unknown = typeof given === 'string' ? given.split(' ').filter(Boolean) : given
          if (Array.isArray(all) && all.length > 0 && all.every(of)) return all
          return fail(`\`${column(fields, part) ?? NAMES[part][0]}\` must be a list of ${what}`, given)
        }
        const isTag = (x: unknown) => Number.isInteger(x) || (typeof x === 'string' && x !== '')
        const words = list('words', (x) => typeof x === 'string', 'words') as string[]
        const tags = list('tags', isTag, 'tags') as (string | number)[]
        if (words.length !== tags.length)
          fail('every word must have one tag', `${words.length} words, ${tags.length} tags`)
        return { kind, words, tags, line }
      }
      case 'label': {
        const label = fields[column(fields, 'label') ?? '']
        const one = (x: unknown) => typeof x === 'number' || (typeof x === 'string' && x !== '')
        if (!one(label) && !(Array.isArray(label) && label.every(one)))
          return fail('`label` must be a class, a list of classes or a number', label)
        const second = column(fields, 'second') === undefined ? {} : { second: text('second') }
        return { kind, text: text('text'), ...second, label: label as Label, line }
      }
    }
  }
}

/**
 * The examples of a data file, read as they are asked for. What its rows mean is taken from the first: `text`; `prompt` and `completion`; `messages`; `text`
 * and `label`; or `tokens` and `tags` (common other names of these columns too).
 *
 * @throws SteepestError DATA that names the line of the first bad row
 */
export async function* examplesOf(path: string): AsyncGenerator<Placed> {
  let read: ((row: Row) => Placed) | undefined
  for await (const row of readRows(path)) {
    read ??= reader(path, kindOf(path, row))
    yield read(row)
  }
  if (!read) throw new SteepestError('DATA', { who: path, rule: 'the file has no rows' })
}
