import { dtypeName, type FolderFormat } from './config-json.js'
import { T5 } from './t5.js'

/** T5 in a Hugging Face folder. */
export const t5Folder: FolderFormat<T5> = {
  type: 't5',

  build(json, options) {
    const layers = json.count('num_layers')
    const [kind, gated] = json.text('feed_forward_proj', 'relu').split('-').reverse()
    const tied = json.flag('tie_word_embeddings', true)
    return new T5({
      vocabSize: json.count('vocab_size'),
      layers,
      decoderLayers: json.count('num_decoder_layers', layers),
      heads: json.count('num_heads'),
      depth: json.count('d_kv'),
      width: json.count('d_model'),
      hidden: json.count('d_ff'),
      // The gated kind of the checkpoints is the tanh approximation, whatever its name says.
      activation: gated === 'gated' && kind === 'gelu' ? 'gelu_new' : kind,
      gated: gated === 'gated',
      buckets: json.count('relative_attention_num_buckets', 32),
      maxDistance: json.count('relative_attention_max_distance', 128),
      eps: json.positive('layer_norm_epsilon', 1e-6),
      tied,
      scaled: json.flag('scale_decoder_outputs', tied),
      padId: Number(json.json.pad_token_id ?? 0),
      startId: Number(json.json.decoder_start_token_id ?? json.json.pad_token_id ?? 0),
      initializerFactor: json.positive('initializer_factor', 1),
      seed: 0,
      ...options,
    })
  },

  /** Both halves have the embedding once more in old files, and so has the output layer of a tied one. */
  nameOf(name, { lm_head }) {
    if (/^(en|de)coder\.embed_tokens\.weight$/.test(name)) return null
    // A table of the first versions that nothing reads.
    if (name === 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight') return null
    return name === 'lm_head.weight' && !lm_head ? null : name
  },

  config({ config }) {
    const kind = config.gated ? `gated-${config.activation.replace('gelu_new', 'gelu')}` : config.activation
    return {
      architectures: ['T5ForConditionalGeneration'],
      model_type: 't5',
      is_encoder_decoder: true,
      vocab_size: config.vocabSize,
      num_layers: config.layers,
      num_decoder_layers: config.decoderLayers,
      num_heads: config.heads,
      d_kv: config.depth,
      d_model: config.width,
      d_ff: config.hidden,
      feed_forward_proj: kind,
      relative_attention_num_buckets: config.buckets,
      relative_attention_max_distance: config.maxDistance,
      layer_norm_epsilon: config.eps,
      dropout_rate: config.dropout,
      tie_word_embeddings: config.tied,
      scale_decoder_outputs: config.scaled,
      pad_token_id: config.padId,
      decoder_start_token_id: config.startId,
      initializer_factor: config.initializerFactor,
      torch_dtype: dtypeName(config.dtype),
    }
  },

  keeps: (model): model is T5 => model instanceof T5,
}
