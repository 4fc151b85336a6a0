import { SteepestError } from '../../errors.js'
import type { ClassRow } from '../../data/batchers.js'
import type { Label, Placed } from '../../data/examples.js'
import type { RowFormat } from '../../data/row-store.js'
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

const NOT_FINITE = /^[-+]?(nan|inf(inity)?)$/i
/** Classes that a head has at most; with more, labels are something else. */
const MOST_CLASSES = 100_000

/** Reads off labels, one example after the other, what they are: classes, several of them to a row, numbers, or tags of words. */
export class Labels {
  private readonly names = new Set<string>()
  private seen = false
  private from = ''
  private tags = false
  private several = false
  private numbers = true
  private whole = true
  /** The first label that says of a number that it is none. */
  private strange: { text: string; line: number; path: string } | undefined
  private largest = { n: 0, line: 0, path: '' }

  see(example: Placed, path: string): void {
    if (example.kind !== 'label' && example.kind !== 'tags') return
    const { line } = example
    this.seen = true
    this.from = path
    this.tags ||= example.kind === 'tags'
    if (example.kind === 'label') this.several ||= Array.isArray(example.label)
    for (const label of example.kind === 'tags' ? example.tags : listed(example.label)) {
      if (!isNumber(label) && NOT_FINITE.test(String(label))) this.strange ??= { text: String(label), line, path }
      else this.numbers &&= isNumber(label)
      this.whole &&= isWhole(label)
      if (isWhole(label) && Number(label) > this.largest.n) this.largest = { n: Number(label), line, path }
      // Numbers that are not whole are not classes, however many they are.
      const name = String(label)
      if (this.names.size < MOST_CLASSES) this.names.add(name)
      else if (!this.names.has(name) && !this.isRegression)
        throw new SteepestError('DATA', {
          who: rowName(path, line),
          rule: `there are at most ${MOST_CLASSES} classes`,
          got: `more, such as ${JSON.stringify(name.slice(0, 40))}`,
          fix: 'Give texts to be written as `prompt` and `completion`',
        })
    }
  }

  private get isRegression(): boolean {
    return !this.tags && !this.several && this.numbers && !this.whole
  }

  /** @throws SteepestError DATA where a class has too large a number */
  classes(): Classes | undefined {
    if (!this.seen) return undefined
    if (this.isRegression && this.strange && [...this.names].some((name) => isNumber(name)))
      throw new SteepestError('DATA', {
        who: rowName(this.strange.path, this.strange.line),
        rule: 'a label that is a number must be a finite one',
        got: this.strange.text,
      })
    if (this.isRegression) return { task: 'sequence', problem: 'regression', names: ['value'] }
    const { n, line, path } = this.largest
    if (this.whole && n >= MOST_CLASSES)
      throw new SteepestError('DATA', {
        who: rowName(path, line),
        rule: `whole numbers as labels are those of classes, from 0 to ${MOST_CLASSES - 1}`,
        got: String(n),
        fix: `Write numbers that are to be learned with a point: ${n}.0`,
      })
    const names = this.whole ? Array.from({ length: n + 1 }, (_, i) => `LABEL_${i}`) : [...this.names].sort()
    if (names.length < 2 && !this.several)
      throw new SteepestError('DATA', {
        who: this.from,
        rule: 'there must be two classes to tell apart',
        got: `${names[0]} alone`,
      })
    if (this.tags) return { task: 'token', problem: 'single', names }
    return { task: 'sequence', problem: this.several ? 'multi' : 'single', names }
  }
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

/** @internal How rows of a classifier are stored. */
export const CLASS_ROW: RowFormat<ClassRow> = { ids: 'int32', types: 'int32', label: 'numbers', line: 'number' }

/** An example with a label as a row for a classifier. */
export function classRow(
  path: string,
  example: LabelExample,
  classes: Classes,
  tokenizer: Tokenizer,
  context: number,
): { row: ClassRow; cut: boolean } {
  const { line } = example
  const { ids, types, cut } = tokensOf(tokenizer, example, context)
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
  return { row: { ids, types, label, line }, cut }
}

/** The part of a model's configuration that the labels decide. */
export const headOf = ({ task, problem, names }: Classes): Head => ({
  task,
  classes: names.length,
  problem,
  labels: names,
})
