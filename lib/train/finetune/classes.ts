import { SteepestError } from '../../errors.js'
import type { ClassRow } from '../../data/batchers.js'
import type { Label, Placed } from '../../data/examples.js'
import { rowName } from '../../data/rows.js'
import type { Tokenizer } from '../../data/tokenizer.js'
import type { BertConfig } from '../../models/bert.js'
import type { ClassTask } from '../../models/heads.js'

/** What the labels of a data set are. */
export interface Classes {
  readonly problem: ClassTask
  /** Names in the order of the model's outputs; one where numbers are learned. */
  readonly names: readonly string[]
}

type LabelExample = Extract<Placed, { kind: 'label' }>

const listed = (label: Label): (string | number)[] => (Array.isArray(label) ? [...label] : [label as string | number])
const isWhole = (x: string | number) => /^-?\d+$/.test(String(x))
const isNumber = (x: string | number) => String(x).trim() !== '' && Number.isFinite(Number(x))

/** Reads off the labels what they are: classes, several of them to a row, or numbers. */
export function classesOf(examples: readonly LabelExample[]): Classes {
  const several = examples.some((e) => Array.isArray(e.label))
  const all = examples.flatMap((e) => listed(e.label))
  if (!several && all.every(isNumber) && !all.every(isWhole)) return { problem: 'regression', names: ['value'] }
  if (all.every(isWhole)) {
    const most = Math.max(...all.map(Number))
    return { problem: several ? 'multi' : 'single', names: Array.from({ length: most + 1 }, (_, i) => `LABEL_${i}`) }
  }
  return { problem: several ? 'multi' : 'single', names: [...new Set(all.map(String))].sort() }
}

/** The number of a class, or an error that names the line. */
function classNumber(path: string, line: number, { names }: Classes, label: string | number): number {
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
  const whole = [...tokenizer.encode(text, { addSpecialTokens: true })]
  const bare = tokenizer.encode(text)
  // What stands before and after one text.
  const at = whole.findIndex((id, i) => id === bare[0] && whole.length - i >= bare.length)
  const before = whole.slice(0, Math.max(0, at))
  const after = whole.slice(Math.max(0, at) + bare.length)
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
export const headOf = ({ problem, names }: Classes): Pick<BertConfig, 'task' | 'classes' | 'problem'> => ({
  task: 'sequence',
  classes: names.length,
  problem,
})
