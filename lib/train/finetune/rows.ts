import { SteepestError } from '../../errors.js'
import { packing, padding, pairing, type PairRow } from '../../data/batchers.js'
import { ChatTemplate } from '../../data/chat.js'
import { type Parted, storeRows } from '../../data/parts.js'
import type { RowFormat } from '../../data/row-store.js'
import { rowName } from '../../data/rows.js'
import { TOKEN_ROW, TokenRows } from '../../data/token-rows.js'
import { Bert, type BertConfig, Roberta } from '../../models/bert.js'
import { CausalLM } from '../../models/causal.js'
import { T5 } from '../../models/t5.js'
import { CLASS_ROW, type Classes, classRow } from './classes.js'
import { note, type Rows, type RowsOptions, storedRows } from './stored-rows.js'
import { maskedRows, tagRows } from './word-rows.js'

/** Longest row where the user says none. */
const LONGEST = 1024

const roundUp = (n: number): number => 32 * Math.ceil(n / 32)

const PAIR_ROW: RowFormat<PairRow> = { source: 'int32', target: 'int32', line: 'number' }

async function causalRows(options: RowsOptions, model: CausalLM): Promise<Rows> {
  const { tokenizer, folder, parts, learnPrompts } = options
  const template = await ChatTemplate.of(folder)
  const most = Math.min(options.context ?? LONGEST, model.config.context)
  const maker = new TokenRows({ tokenizer, template, context: most, learnPrompts })
  const sizeOf = ({ ids }: { ids: Int32Array }) => ids.length
  const rowsOf = ({ example, path }: Parted) => maker.of(example, path)
  const rows = await storeRows(parts, TOKEN_ROW, sizeOf, rowsOf, options.storage)
  const { cut, dropped } = maker.shortened
  const context = options.context ?? Math.min(most, roundUp(Math.max(rows.train.longest, rows.validation.longest)))
  return storedRows(options, rows, {
    context,
    notes: note(cut, most, dropped),
    batcher: (batch) => packing(batch, context),
    show({ ids, learned }) {
      let text = ''
      for (let at = 0; at < ids.length; ) {
        let end = at
        while (end < ids.length && learned[end] === learned[at]) end++
        const piece = tokenizer.decode(ids.subarray(at, end))
        text += learned[at] ? `⟦${piece}⟧` : piece
        at = end
      }
      return text
    },
  })
}

async function classifierRows(options: RowsOptions, classes: Classes, context: number, padId: number): Promise<Rows> {
  const { tokenizer, parts } = options
  let cut = 0
  const sizeOf = ({ ids }: { ids: Int32Array }) => ids.length
  const rowsOf = ({ example, path }: Parted) => {
    if (example.kind !== 'label')
      throw new SteepestError('DATA', {
        who: rowName(path, example.line),
        rule: 'all rows must have a label, as those before',
        got: `a row of ${example.kind}`,
      })
    const made = classRow(path, example, classes, tokenizer, context)
    cut += Number(made.cut)
    return [made.row]
  }
  const rows = await storeRows(parts, CLASS_ROW, sizeOf, rowsOf, options.storage)
  const { problem, names } = classes
  const single = problem === 'single'
  const told = (label: readonly number[]) =>
    problem === 'regression' ? label[0] : (single ? [names[label[0]]] : names.filter((_, i) => label[i])).join(', ')
  return storedRows(options, rows, {
    context,
    unit: 'rows',
    notes: note(cut, context),
    batcher: (batch) => padding(batch, padId, !single),
    show: ({ ids, label }) => `${tokenizer.decode(ids)} → ⟦${told(label)}⟧`,
  })
}

async function translationRows(options: RowsOptions, { config }: T5): Promise<Rows> {
  const { tokenizer, parts } = options
  const context = options.context ?? LONGEST / 2
  let cut = 0
  const tokens = (text: string): Int32Array => {
    const ids = tokenizer.encode(text, { addSpecialTokens: true })
    if (ids.length <= context) return ids
    cut++
    return Int32Array.from([...ids.subarray(0, context - 1), ids[ids.length - 1]])
  }
  const rowsOf = ({ example: e, path }: Parted): PairRow[] => {
    if (e.kind === 'pair') return [{ source: tokens(e.prompt), target: tokens(e.completion), line: e.line }]
    throw new SteepestError('DATA', {
      who: path,
      rule: 'a model from sequence to sequence learns rows of `prompt` and `completion`',
      got: `rows of ${e.kind}`,
    })
  }
  const sizeOf = ({ source }: PairRow) => source.length
  const rows = await storeRows(parts, PAIR_ROW, sizeOf, rowsOf, options.storage)
  return storedRows(options, rows, {
    context,
    notes: note(cut, context),
    batcher: (batch) => pairing(batch, config.padId),
    show: ({ source, target }) => `${tokenizer.decode(source)} → ⟦${tokenizer.decode(target)}⟧`,
  })
}

/** The rows of a data set as the model learns them. */
export async function rowsFor(options: RowsOptions): Promise<Rows> {
  const { model, parts, classes, tokenizer } = options
  if (model instanceof CausalLM) return causalRows(options, model)
  if (model instanceof T5) return translationRows(options, model)
  const { config } = model as unknown as { config: Pick<BertConfig, 'positions' | 'padId' | 'vocabSize' | 'task'> }
  // RoBERTa counts positions from the one after that of padding.
  const places = model instanceof Roberta ? config.positions - config.padId - 1 : config.positions
  const context = Math.min(options.context ?? LONGEST / 2, places)
  const { kind } = parts
  if (kind === 'tags' && config.task === 'token') return tagRows(options, classes!, context, config.padId)
  if (kind === 'label' && classes) return classifierRows(options, classes, context, config.padId)
  if (kind === 'text' && config.task === 'maskedLm')
    return maskedRows(options, context, config.padId, tokenizer.vocabSize)
  const isBert = model instanceof Bert || model instanceof Roberta
  throw new SteepestError('DATA', {
    who: parts.data,
    rule: `a ${model.constructor.name} learns rows of \`text\` and \`label\`${isBert ? ', `tokens` and `tags`, or `text` alone with its head for masked tokens' : ''}`,
    got: `rows of ${kind}${kind === 'text' ? ` and a head for ${config.task === 'token' ? 'tags' : 'classes'}` : ''}`,
  })
}
