// Models of four kinds in any size, and a batch of numbers for them.
import { Bert } from '../../../dist/models/bert.js'
import { GPT2 } from '../../../dist/models/gpt2.js'
import { Llama } from '../../../dist/models/llama.js'
import { T5 } from '../../../dist/models/t5.js'
import { HostArray } from '../../../dist/train/host.js'

const common = {
  vocabSize: 1000,
  layers: 4,
  heads: 4,
  width: 256,
  hidden: 1024,
  eps: 1e-5,
  dropout: 0,
  dtype: 'float32',
  seed: 1,
}
const bert = {
  types: 2,
  activation: 'gelu',
  padId: 0,
  task: 'maskedLm',
  classes: 2,
  initializerRange: 0.02,
}
const t5 = {
  activation: 'relu',
  gated: false,
  buckets: 32,
  maxDistance: 128,
  tied: true,
  scaled: true,
  padId: 0,
  startId: 0,
  initializerFactor: 1,
}
const makers = {
  gpt2: (context, sizes) => new GPT2({ ...common, context, ...sizes }),
  llama: (context, sizes) => new Llama({ ...common, context, kvHeads: 2, ...sizes }),
  bert: (context, sizes) => new Bert({ ...common, ...bert, positions: context, ...sizes }),
  t5: (_, sizes) => {
    const all = { ...common, ...t5, ...sizes }
    return new T5({ ...all, decoderLayers: all.layers, depth: all.width / all.heads })
  },
}

export const modelOf = (kind, context, sizes) => makers[kind](context, sizes)

/** A step of so many micro-batches. */
export function stepOf(batch, context, micros = 1) {
  const ids = Int32Array.from({ length: batch * context }, (_, i) => (i * 31) % 997)
  const rows = () => new HostArray(ids, [batch, context])
  const microBatches = Array.from({ length: micros }, () => ({ inputIds: rows(), labels: rows() }))
  return { microBatches, tokens: micros * ids.length }
}
