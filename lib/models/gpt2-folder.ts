import { SteepestError } from '../errors.js'
import { ACTIVATIONS } from './activations.js'
import { dtypeName, type FolderFormat } from './config-json.js'
import { GPT2 } from './gpt2.js'

/** Settings of Hugging Face's GPT-2 that change what it computes, each with the values that steepest's GPT-2 computes. */
const FIXED: Readonly<Record<string, readonly unknown[]>> = {
  scale_attn_weights: [true],
  scale_attn_by_inverse_layer_idx: [false],
  add_cross_attention: [false],
  tie_word_embeddings: [true],
}

/** GPT-2 in a Hugging Face folder. */
export const gpt2Folder: FolderFormat<GPT2> = {
  type: 'gpt2',

  build(json, { dtype, dropout }) {
    for (const [key, values] of Object.entries(FIXED)) json.only(key, values)
    json.only('activation_function', Object.keys(ACTIVATIONS))
    const width = json.count('n_embd')
    const heads = json.count('n_head')
    if (width % heads !== 0) {
      throw new SteepestError('FORMAT', {
        who: json.who,
        rule: '`n_head` must divide `n_embd`',
        got: `${heads} for ${width}`,
      })
    }
    return new GPT2({
      vocabSize: json.count('vocab_size'),
      context: json.count('n_positions'),
      layers: json.count('n_layer'),
      heads,
      width,
      hidden: json.count('n_inner', 4 * width),
      dropout,
      activation: json.text('activation_function', 'gelu_new'),
      eps: json.positive('layer_norm_epsilon', 1e-5),
      dtype,
    })
  },

  /** The first checkpoints have no `transformer.`; masks are buffers of old versions, and the output layer is the embedding. */
  nameOf(fileName) {
    if (fileName === 'lm_head.weight' || /\.attn\.(masked_)?bias$/.test(fileName)) return null
    return fileName.startsWith('transformer.') ? fileName : `transformer.${fileName}`
  },

  config(model) {
    const { vocabSize, context, layers, heads, width, hidden, dropout, activation, eps, dtype } = model.config
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
      activation_function: activation,
      attn_pdrop: dropout,
      embd_pdrop: dropout,
      resid_pdrop: dropout,
      layer_norm_epsilon: eps,
      initializer_range: 0.02,
      tie_word_embeddings: true,
      torch_dtype: dtypeName(dtype),
    }
  },

  keeps: (model): model is GPT2 => model instanceof GPT2,
}
