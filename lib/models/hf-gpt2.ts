import { SteepestError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import { GPT2 } from './gpt2.js'
import type { ConfigJson, FolderFormat } from './hf.js'

/** Settings of Hugging Face's GPT-2 that change what it computes, each with the values that steepest's GPT-2 computes. */
const FIXED: Readonly<Record<string, readonly unknown[]>> = {
  activation_function: ['gelu_new', 'gelu_pytorch_tanh'],
  scale_attn_weights: [true],
  scale_attn_by_inverse_layer_idx: [false],
  add_cross_attention: [false],
  tie_word_embeddings: [true],
}

const DTYPES: Record<DType, string | undefined> = {
  float32: 'float32',
  bfloat16: 'bfloat16',
  float64: 'float64',
  int32: undefined,
  uint8: undefined,
}

function count(who: string, config: ConfigJson, key: string): number {
  const value = config[key]
  if (Number.isSafeInteger(value) && Number(value) >= 1) return Number(value)
  throw new SteepestError('FORMAT', {
    who,
    rule: `\`${key}\` must be a whole number of 1 or more`,
    got: JSON.stringify(value) ?? 'nothing',
  })
}

/** GPT-2 in a Hugging Face folder. */
export const gpt2Folder: FolderFormat<GPT2> = {
  type: 'gpt2',

  build(who, config, { dtype, dropout = 0 }) {
    for (const [key, values] of Object.entries(FIXED)) {
      if (config[key] === undefined || values.includes(config[key])) continue
      throw new SteepestError('FORMAT', {
        who,
        rule: `steepest has GPT-2 with \`${key}\` ${values.join(' or ')}`,
        got: JSON.stringify(config[key]),
      })
    }
    const eps = config.layer_norm_epsilon ?? 1e-5
    if (typeof eps !== 'number' || !(eps > 0))
      throw new SteepestError('FORMAT', { who, rule: '`layer_norm_epsilon` must be above 0', got: JSON.stringify(eps) })
    const width = count(who, config, 'n_embd')
    const heads = count(who, config, 'n_head')
    if (width % heads !== 0)
      throw new SteepestError('FORMAT', { who, rule: '`n_head` must divide `n_embd`', got: `${heads} for ${width}` })
    return new GPT2({
      vocabSize: count(who, config, 'vocab_size'),
      context: count(who, config, 'n_positions'),
      layers: count(who, config, 'n_layer'),
      heads,
      width,
      hidden: config.n_inner == null ? 4 * width : count(who, config, 'n_inner'),
      dropout,
      eps,
      dtype,
    })
  },

  /** The first checkpoints have no `transformer.`; masks are buffers of old versions, and the output layer is the embedding. */
  nameOf(fileName) {
    if (fileName === 'lm_head.weight' || /\.attn\.(masked_)?bias$/.test(fileName)) return null
    return fileName.startsWith('transformer.') ? fileName : `transformer.${fileName}`
  },

  config(model) {
    const { vocabSize, context, layers, heads, width, hidden, dropout, eps, dtype } = model.config
    return {
      architectures: ['GPT2LMHeadModel'],
      model_type: 'gpt2',
      vocab_size: vocabSize,
      n_positions: context,
      n_ctx: context,
      n_layer: layers,
      n_head: heads,
      n_embd: width,
      n_inner: hidden === 4 * width ? null : hidden,
      activation_function: 'gelu_new',
      attn_pdrop: dropout,
      embd_pdrop: dropout,
      resid_pdrop: dropout,
      layer_norm_epsilon: eps,
      initializer_range: 0.02,
      tie_word_embeddings: true,
      torch_dtype: DTYPES[dtype],
    }
  },

  keeps: (model): model is GPT2 => model instanceof GPT2,
}
