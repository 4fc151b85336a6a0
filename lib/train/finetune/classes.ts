import { SteepestError } from '../../errors.js'
import type { ClassRow } from '../../data/batchers.js'
import type { Label, Placed } from '../../data/examples.js'
import { rowName } from '../../data/rows.js'
import { surround } from '../../data/surround.js'
import type { Tokenizer } from '../../data/tokenizer.js'
import type { Head } from '../../models/config-json.js'
import type { ClassTask } from '../../models/heads.js'

/** What the labels of a data set are. */
export interface Classes {
  readonly task: 'sequence' | 'token'
  readonly problem: ClassTask
  /** Names in the order of the model's outputs; one where numbers are learned. */
  readonly names: readonly string[]
}

type LabelExample = Extract<Placed, { kind: 'label' }>
export type TagExample = Extract<Placed, { kind: 'tags' }>

const listed = (label: Label): (string | number)[] => (Array.isArray(label) ? [...label] : [label as string | number])
const isWhole = (x: string | number) => /^-?\d+$/.test(String(x))
const isNumber = (x: string | number) => String(x).trim() !== '' && Number.isFinite(Number(x))

const numbered = (labels: readonly (string | number)[]): string[] =>
  Array.from({ length: labels.reduce<number>((most, l) => Math.max(most, Number(l)), 0) + 1 }, (_, i) => `LABEL_${i}`)

/** Reads off the labels what they are: classes, several of them to a row, numbers, or tags of words. */
export function classesOf(examples: readonly (LabelExample | TagExample)[]): Classes {
  const tags = new Set(examples.flatMap((e) => (e.kind === 'tags' ? e.tags : [])))
  if (tags.size > 0) {
    const all = [...tags]
    return { task: 'token', problem: 'single', names: all.every(isWhole) ? numbered(all) : all.map(String).sort() }
  }
  const labels = examples.flatMap((e) => (e.kind === 'label' ? [e.label] : []))
  const several = labels.some((label) => Array.isArray(label))
  const all = labels.flatMap(listed)
  const task = 'sequence'
  if (!several && all.every(isNumber) && !all.every(isWhole)) return { task, problem: 'regression', names: ['value'] }
  const problem = several ? 'multi' : 'single'
  return { task, problem, names: all.every(isWhole) ? numbered(all) : [...new Set(all.map(String))].sort() }
}

/** The number of a class, or an error that names the line. */
export function classNumber(path: string, line: number, { names }: Classes, label: string | number): number {
  const named = names.indexOf(String(label))
  const n = named >= 0 ? named : isWhole(label) ? Number(label) : -1
  if (n >= 0 && n < names.length) return n
  throw new SteepestError('DATA', {
    who: rowName(path, line),
    rule: `the label must be one of the ${names.length} classes that the model has`,
    got: String(label),
    fix: `They are ${names.slice(0, 6).join(', ')}${names.length > 6 ? ', …' : ''}`,
  })
}

/** A pair of texts as the tokenizer of a BERT or RoBERTa writes it: [CLS] a [SEP] b [SEP], or <s> a </s></s> b </s>. */
function tokensOf(
  tokenizer: Tokenizer,
  { text, second }: LabelExample,
  context: number,
): Pick<ClassRow, 'ids' | 'types'> & { cut: boolean } {
  const bare = tokenizer.encode(text)
  const { before, after } = surround(tokenizer)
  const other = second === undefined ? [] : [...tokenizer.encode(second)]
  const roberta =
    before.length > 0 && after.length > 0 && before[0] !== after[0] && tokenizer.decode([after[0]]) === '</s>'
  const between = after.length > 0 ? after : [...tokenizer.encode('\n')]
  const middle = second === undefined ? [] : roberta ? [...after, ...after] : between
  const room = context - before.length - middle.length - after.length
  let [a, b] = [[...bare], other]
  const cut = a.length + b.length > room
  // The longer of the two gives way.
  while (a.length + b.length > room) {
    if (a.length >= b.length) a = a.slice(0, -1)
    else b = b.slice(0, -1)
  }
  const first = [...before, ...a, ...(second === undefined ? after : middle)]
  const rest = second === undefined ? [] : [...b, ...after]
  const types = [...first.map(() => 0), ...rest.map(() => (roberta ? 0 : 1))]
  return { ids: Int32Array.from([...first, ...rest]), types: Int32Array.from(types), cut }
}

/** Examples with labels as rows for a classifier. */
export function classRows(
  path: string,
  examples: readonly LabelExample[],
  classes: Classes,
  tokenizer: Tokenizer,
  context: number,
): { rows: ClassRow[]; cut: number } {
  let cut = 0
  const rows = examples.map((example): ClassRow => {
    const { line } = example
    const tokens = tokensOf(tokenizer, example, context)
    if (tokens.cut) cut++
    let label: number[]
    if (classes.problem === 'regression') {
      const [value] = listed(example.label)
      if (!isNumber(value))
        throw new SteepestError('DATA', {
          who: rowName(path, line),
          rule: 'the label must be a number, as in the rows before',
          got: String(value),
        })
      label = [Number(value)]
    } else {
      const numbers = listed(example.label).map((l) => classNumber(path, line, classes, l))
      label = classes.problem === 'single' ? numbers : classes.names.map((_, i) => Number(numbers.includes(i)))
    }
    return { ids: tokens.ids, types: tokens.types, label, line }
  })
  return { rows, cut }
}

/** The part of a model's configuration that the labels decide. */
export const headOf = ({ task, problem, names }: Classes): Head => ({
  task,
  classes: names.length,
  problem,
  labels: names,
})
