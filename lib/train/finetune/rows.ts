import { SteepestError } from '../../errors.js'
import { packing, padding, pairing, type PairRow } from '../../data/batchers.js'
import { ChatTemplate } from '../../data/chat.js'
import type { Placed } from '../../data/examples.js'
import { permutation } from '../../data/permutation.js'
import { RowLoader } from '../../data/row-loader.js'
import { tokenRows } from '../../data/token-rows.js'
import type { Tokenizer } from '../../data/tokenizer.js'
import { Bert, type BertConfig, Roberta } from '../../models/bert.js'
import { CausalLM } from '../../models/causal.js'
import type { FolderModel } from '../../models/hf.js'
import { T5 } from '../../models/t5.js'
import type { StepData } from '../data.js'
import { type Classes, classRows } from './classes.js'
import { maskedRows, note, tagRows } from './word-rows.js'

/** The rows of a data set for one model, and how they are given. */
export interface Rows {
  readonly count: number
  readonly validationCount: number
  readonly context: number
  /** What a step is counted in, where that is not tokens. */
  readonly unit?: 'rows' | 'images'
  /** What was done to rows that were too long; empty where nothing was. */
  readonly notes: readonly string[]
  loader(options: { batch: number; accumulate: number; seed: number }): RowLoader<unknown>
  evaluation(batch: number): () => AsyncGenerator<StepData>
  /** Whether rows are made while training waits for nothing else: then they are made ahead of it. */
  readonly slow?: boolean
  /** Some rows as a person reads them; what is learned stands between ⟦ and ⟧. */
  preview(count: number): string[]
}

export interface RowsOptions {
  readonly model: FolderModel
  readonly tokenizer: Tokenizer
  readonly folder: string
  readonly path: string
  readonly train: readonly Placed[]
  readonly validation: readonly Placed[]
  readonly context?: number
  readonly learnPrompts?: boolean
  readonly classes?: Classes
}

/** Longest row where the user says none. */
const LONGEST = 1024

/** Holds back a share of the examples, spread over all; the same seed holds back the same. */
export function heldBack<T>(examples: readonly T[], share: number, seed: number): { train: T[]; validation: T[] } {
  const count = Math.min(examples.length - 1, Math.max(1, Math.round(share * examples.length)))
  const order = permutation(examples.length, seed, 0x7a11)
  const held = new Set(Array.from({ length: Math.max(0, count) }, (_, i) => order(i)))
  return {
    train: examples.filter((_, i) => !held.has(i)),
    validation: examples.filter((_, i) => held.has(i)),
  }
}

const roundUp = (n: number): number => 32 * Math.ceil(n / 32)

async function causalRows(options: RowsOptions, model: CausalLM): Promise<Rows> {
  const { tokenizer, folder, path, learnPrompts } = options
  const template = await ChatTemplate.of(folder)
  const most = Math.min(options.context ?? LONGEST, model.config.context)
  const of = (examples: readonly Placed[]) =>
    tokenRows(examples, { tokenizer, template, context: most, learnPrompts, path })
  const [train, validation] = [await of(options.train), await of(options.validation)]
  const longest = [...train.rows, ...validation.rows].reduce((n, r) => Math.max(n, r.ids.length), 0)
  const context = options.context ?? Math.min(most, roundUp(longest))
  const batcher = (batch: number) => packing(batch, context)
  return {
    count: train.rows.length,
    validationCount: validation.rows.length,
    context,
    notes: note(train.shortened.cut, most, train.shortened.dropped),
    loader: ({ batch, accumulate, seed }) => new RowLoader(train.rows, batcher(batch), { accumulate, seed, who: path }),
    evaluation: (batch) => () => RowLoader.once(validation.rows, batcher(batch)),
    preview: (count) =>
      train.rows.slice(0, count).map(({ ids, learned }) => {
        let text = ''
        for (let at = 0; at < ids.length; ) {
          let end = at
          while (end < ids.length && learned[end] === learned[at]) end++
          const piece = tokenizer.decode(ids.subarray(at, end))
          text += learned[at] ? `⟦${piece}⟧` : piece
          at = end
        }
        return text
      }),
  }
}

function classifierRows(options: RowsOptions, context: number, padId: number): Rows {
  const { tokenizer, path, classes } = options
  const labelled = (examples: readonly Placed[]) =>
    examples.filter((e): e is Extract<Placed, { kind: 'label' }> => e.kind === 'label')
  const of = (examples: readonly Placed[]) => classRows(path, labelled(examples), classes!, tokenizer, context)
  const [train, validation] = [of(options.train), of(options.validation)]
  const float = classes!.problem !== 'single'
  return {
    count: train.rows.length,
    validationCount: validation.rows.length,
    context,
    unit: 'rows',
    notes: note(train.cut, context),
    loader: ({ batch, accumulate, seed }) =>
      new RowLoader(train.rows, padding(batch, padId, float), { accumulate, seed, who: path }),
    evaluation: (batch) => () => RowLoader.once(validation.rows, padding(batch, padId, float)),
    preview: (count) =>
      train.rows.slice(0, count).map(({ ids, label }) => {
        const told = classes!.problem === 'single' ? classes!.names[label[0]] : label.join(' ')
        return `${tokenizer.decode(ids)} → ⟦${told}⟧`
      }),
  }
}

function translationRows(options: RowsOptions, { config }: T5): Rows {
  const { tokenizer, path } = options
  const context = options.context ?? LONGEST / 2
  const shortened = { cut: 0 }
  const tokens = (text: string): Int32Array => {
    const ids = tokenizer.encode(text, { addSpecialTokens: true })
    if (ids.length <= context) return ids
    shortened.cut++
    return Int32Array.from([...ids.subarray(0, context - 1), ids[ids.length - 1]])
  }
  const of = (examples: readonly Placed[]): PairRow[] =>
    examples.map((e) => {
      if (e.kind === 'pair') return { source: tokens(e.prompt), target: tokens(e.completion), line: e.line }
      throw new SteepestError('DATA', {
        who: path,
        rule: 'a model from sequence to sequence learns rows of `prompt` and `completion`',
        got: `rows of ${e.kind}`,
      })
    })
  const [train, validation] = [of(options.train), of(options.validation)]
  return {
    count: train.length,
    validationCount: validation.length,
    context,
    notes: note(shortened.cut, context),
    loader: ({ batch, accumulate, seed }) =>
      new RowLoader(train, pairing(batch, config.padId), { accumulate, seed, who: path }),
    evaluation: (batch) => () => RowLoader.once(validation, pairing(batch, config.padId)),
    preview: (count) =>
      train.slice(0, count).map(({ source, target }) => `${tokenizer.decode(source)} → ⟦${tokenizer.decode(target)}⟧`),
  }
}

/** The rows of a data set as the model learns them. */
export async function rowsFor(options: RowsOptions): Promise<Rows> {
  const { model } = options
  if (model instanceof CausalLM) return causalRows(options, model)
  if (model instanceof T5) return translationRows(options, model)
  const { config } = model as unknown as { config: Pick<BertConfig, 'positions' | 'padId' | 'vocabSize' | 'task'> }
  // RoBERTa counts positions from the one after that of padding.
  const places = model instanceof Roberta ? config.positions - config.padId - 1 : config.positions
  const context = Math.min(options.context ?? LONGEST / 2, places)
  const { kind } = options.train[0]
  if (kind === 'tags' && config.task === 'token') return tagRows(options, options.classes!, context, config.padId)
  if (kind === 'label' && options.classes) return classifierRows(options, context, config.padId)
  if (kind === 'text' && config.task === 'maskedLm')
    return maskedRows(options, context, config.padId, options.tokenizer.vocabSize)
  const isBert = model instanceof Bert || model instanceof Roberta
  throw new SteepestError('DATA', {
    who: options.path,
    rule: `a ${model.constructor.name} learns rows of \`text\` and \`label\`${isBert ? ', `tokens` and `tags`, or `text` alone with its head for masked tokens' : ''}`,
    got: `rows of ${kind}${kind === 'text' ? ` and a head for ${config.task === 'token' ? 'tags' : 'classes'}` : ''}`,
  })
}
