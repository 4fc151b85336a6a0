import { SteepestError } from '../errors.js'
import { Bert, type BertConfig, Roberta } from './bert.js'
import { type BuildOptions, type ConfigJson, type ConfigReader, dtypeName, type FolderFormat } from './config-json.js'
import type { ClassTask } from './heads.js'

const TASKS = {
  ForMaskedLM: 'maskedLm',
  ForSequenceClassification: 'sequence',
  ForTokenClassification: 'token',
} as const
const PROBLEMS: Readonly<Record<string, ClassTask>> = {
  single_label_classification: 'single',
  multi_label_classification: 'multi',
  regression: 'regression',
}

/** The head of `architectures`; a bare model is one for masked tokens. */
function taskOf(json: ConfigReader, prefix: string): BertConfig['task'] {
  const named = (json.json.architectures as readonly string[] | undefined)?.[0] ?? `${prefix}ForMaskedLM`
  const task = TASKS[named.slice(prefix.length) as keyof typeof TASKS]
  if (named.startsWith(prefix) && task) return task
  throw new SteepestError('FORMAT', {
    who: json.who,
    rule: `\`architectures\` must name one of ${Object.keys(TASKS)
      .map((t) => prefix + t)
      .join(', ')}`,
    got: named,
  })
}

/** Names of the classes in their order. */
export const labelsOf = (json: ConfigReader): string[] | undefined => {
  const labels = json.json.id2label as Record<string, string> | undefined
  return labels && Object.keys(labels).map((_, i) => String(labels[i]))
}

/** Numbers of the labels, from `id2label` or `num_labels`. */
export function classesOf(json: ConfigReader): number {
  const labels = json.json.id2label as Record<string, string> | undefined
  return labels ? Object.keys(labels).length : json.count('num_labels', 2)
}

/** How the classes are learned. */
export const problemOf = (json: ConfigReader, classes: number): ClassTask =>
  PROBLEMS[json.text('problem_type', classes === 1 ? 'regression' : 'single_label_classification')]

function read(
  json: ConfigReader,
  prefix: string,
  defaults: Partial<BertConfig>,
  { dtype, dropout, head }: BuildOptions,
): BertConfig {
  json.only('position_embedding_type', ['absolute'])
  json.only('is_decoder', [false])
  json.only('add_cross_attention', [false])
  json.only('tie_word_embeddings', [true])
  const classes = classesOf(json)
  const problem = problemOf(json, classes)
  const padId = json.json.pad_token_id ?? defaults.padId
  return {
    vocabSize: json.count('vocab_size'),
    positions: json.count('max_position_embeddings', defaults.positions),
    types: json.count('type_vocab_size', 2),
    layers: json.count('num_hidden_layers'),
    heads: json.count('num_attention_heads'),
    width: json.count('hidden_size'),
    hidden: json.count('intermediate_size'),
    activation: json.text('hidden_act', 'gelu'),
    eps: json.positive('layer_norm_eps', defaults.eps),
    padId: Number(padId),
    task: head?.task ?? taskOf(json, prefix),
    classes: head?.classes ?? classes,
    problem: head?.problem ?? problem,
    labels: head ? head.labels : labelsOf(json),
    initializerRange: json.positive('initializer_range', 0.02),
    seed: 0,
    dtype,
    dropout,
  }
}

function write(type: string, prefix: string, config: BertConfig): ConfigJson {
  const head = Object.entries(TASKS).find(([, task]) => task === config.task)![0]
  return {
    architectures: [`${prefix}${head}`],
    model_type: type,
    vocab_size: config.vocabSize,
    max_position_embeddings: config.positions,
    type_vocab_size: config.types,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    hidden_size: config.width,
    intermediate_size: config.hidden,
    hidden_act: config.activation,
    layer_norm_eps: config.eps,
    pad_token_id: config.padId,
    hidden_dropout_prob: config.dropout,
    attention_probs_dropout_prob: config.dropout,
    initializer_range: config.initializerRange,
    tie_word_embeddings: true,
    torch_dtype: dtypeName(config.dtype),
    ...(config.task === 'maskedLm' ? {} : labelKeys(config)),
    ...(config.task === 'sequence' ? problemKey(config.problem) : {}),
  }
}

/** `problem_type` of a `config.json`. */
export const problemKey = (problem: ClassTask): ConfigJson => ({
  problem_type: Object.entries(PROBLEMS).find(([, task]) => task === problem)![0],
})

/** `id2label` and `label2id` of a `config.json`. */
export function labelKeys({ classes, labels }: Pick<BertConfig, 'classes' | 'labels'>): ConfigJson {
  const named = Array.from({ length: classes }, (_, i) => [i, labels?.[i] ?? `LABEL_${i}`] as const)
  return {
    id2label: Object.fromEntries(named),
    label2id: Object.fromEntries(named.map(([i, name]) => [name, i])),
  }
}

/** Files of the first versions call the weight and bias of a norm gamma and beta; buffers and what is tied twice need not be read. */
const renamed = (name: string): string | null =>
  /position_ids$|^cls\.predictions\.decoder\.|^lm_head\.decoder\.|^cls\.seq_relationship\./.test(name)
    ? null
    : name.replace(/LayerNorm\.gamma$/, 'LayerNorm.weight').replace(/LayerNorm\.beta$/, 'LayerNorm.bias')

/** BERT in a Hugging Face folder. */
export const bertFolder: FolderFormat<Bert> = {
  type: 'bert',
  build: (json, options) => new Bert(read(json, 'Bert', { positions: 512, eps: 1e-12, padId: 0 }, options)),
  // A model for masked tokens may come with a pooler that nothing reads.
  nameOf: (name, { bert, cls, classifier }) => {
    const unread = (!bert.pooler && name.startsWith('bert.pooler.')) || (!cls && name.startsWith('cls.'))
    return unread || (!classifier && name.startsWith('classifier.')) ? null : renamed(name)
  },
  isHead: (name) => /^classifier\.|^bert\.pooler\./.test(name),
  config: ({ config }) => write('bert', 'Bert', config),
  keeps: (model): model is Bert => model instanceof Bert,
}

/** RoBERTa in a Hugging Face folder. */
export const robertaFolder: FolderFormat<Roberta> = {
  type: 'roberta',
  build: (json, options) => new Roberta(read(json, 'Roberta', { positions: 514, eps: 1e-5, padId: 1 }, options)),
  nameOf: (name, { lm_head, classifier }) => {
    const unread = name.startsWith('roberta.pooler.') || (!lm_head && name.startsWith('lm_head.'))
    return unread || (!classifier && name.startsWith('classifier.')) ? null : renamed(name)
  },
  isHead: (name) => name.startsWith('classifier.'),
  config: ({ config }) => write('roberta', 'Roberta', config),
  keeps: (model): model is Roberta => model instanceof Roberta,
}
