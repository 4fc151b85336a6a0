import type { BuildOptions, ConfigJson, ConfigReader, FolderFormat } from './config-json.js'
import { dtypeName } from './config-json.js'
import type { Decoder, DecoderConfig } from './decoder.js'
import { Gemma2, Gemma3 } from './gemma.js'
import { Llama } from './llama.js'
import { Mistral } from './mistral.js'
import { Qwen2, Qwen3 } from './qwen.js'
import { readRope } from './rope.js'

/** What all decoders read alike; an architecture changes some of it. */
function common(json: ConfigReader, { dtype, dropout }: BuildOptions): DecoderConfig {
  const width = json.count('hidden_size')
  const heads = json.count('num_attention_heads')
  const layers = json.count('num_hidden_layers')
  const depth = json.count('head_dim', Math.floor(width / heads))
  const rope = json.json.rope_parameters as ConfigJson | undefined
  const nested = rope !== undefined && typeof Object.values(rope)[0] === 'object' && rope.rope_type === undefined
  const attentionBias = json.flag('attention_bias', false)
  return {
    vocabSize: json.count('vocab_size'),
    context: json.count('max_position_embeddings', 2048),
    layers,
    heads,
    kvHeads: json.count('num_key_value_heads', heads),
    width,
    hidden: json.count('intermediate_size'),
    depth,
    eps: json.positive('rms_norm_eps', 1e-6),
    rope: new Array(layers).fill(readRope(json.who, json.json, nested ? {} : undefined)),
    windows: new Array(layers).fill(null),
    activation: json.text('hidden_act', 'silu'),
    bias: { qkv: attentionBias, out: attentionBias, mlp: json.flag('mlp_bias', false) },
    qkNorm: false,
    gemma: false,
    embedScale: 1,
    scale: 1 / Math.sqrt(depth),
    tied: json.flag('tie_word_embeddings', false),
    padId: json.has('pad_token_id') ? Number(json.json.pad_token_id) : null,
    dropout,
    initializerRange: json.positive('initializer_range', 0.02),
    dtype,
    seed: 0,
  }
}

/** Windows of the layers: `layer_types` where it is there, else what the architecture says. */
function windowsOf(json: ConfigReader, layers: number, window: number | null, slides: (layer: number) => boolean) {
  const types = json.json.layer_types as readonly string[] | undefined
  return Array.from({ length: layers }, (_, i) =>
    window !== null && (types ? types[i] === 'sliding_attention' : slides(i)) ? window : null,
  )
}

const qwenWindows = (json: ConfigReader, layers: number) => {
  const window = json.flag('use_sliding_window', false) ? json.count('sliding_window', 4096) : null
  const first = Number(json.json.max_window_layers ?? 28)
  return windowsOf(json, layers, window, (i) => i >= first)
}

const gemmaScales = (json: ConfigReader, width: number) => ({
  gemma: true,
  embedScale: Math.sqrt(width),
  scale: json.positive('query_pre_attn_scalar', 256) ** -0.5,
  activation: json.text('hidden_activation', 'gelu_pytorch_tanh'),
  tied: json.flag('tie_word_embeddings', true),
})

const softCaps = (json: ConfigReader) => ({
  attentionSoftCap: json.has('attn_logit_softcapping') ? json.positive('attn_logit_softcapping') : undefined,
  logitSoftCap: json.has('final_logit_softcapping') ? json.positive('final_logit_softcapping') : undefined,
})

interface Family {
  type: string
  architecture: string
  model: new (config: DecoderConfig) => Decoder
  /** What differs from `common`. */
  own(json: ConfigReader, config: DecoderConfig): Partial<DecoderConfig>
  /** Keys that a written `config.json` has beside those of all. */
  keys(config: DecoderConfig): ConfigJson
}

const windowOf = ({ windows }: DecoderConfig): number | null => windows.find((w) => w !== null) ?? null
const layerTypes = ({ windows }: DecoderConfig) =>
  windows.map((w) => (w === null ? 'full_attention' : 'sliding_attention'))

const FAMILIES: readonly Family[] = [
  {
    type: 'llama',
    architecture: 'LlamaForCausalLM',
    model: Llama,
    own: () => ({}),
    keys: ({ bias }) => ({ attention_bias: bias.qkv, mlp_bias: bias.mlp }),
  },
  {
    type: 'mistral',
    architecture: 'MistralForCausalLM',
    model: Mistral,
    own: (json, { layers }) => {
      const window = json.json.sliding_window === undefined ? 4096 : (json.json.sliding_window as number | null)
      return { windows: new Array(layers).fill(window) }
    },
    keys: (config) => ({ sliding_window: windowOf(config) }),
  },
  {
    type: 'qwen2',
    architecture: 'Qwen2ForCausalLM',
    model: Qwen2,
    own: (json, { layers }) => ({
      bias: { qkv: true, out: false, mlp: false },
      windows: qwenWindows(json, layers),
    }),
    keys: (config) => ({
      use_sliding_window: windowOf(config) !== null,
      sliding_window: windowOf(config),
      layer_types: layerTypes(config),
    }),
  },
  {
    type: 'qwen3',
    architecture: 'Qwen3ForCausalLM',
    model: Qwen3,
    own: (json, { layers }) => ({ qkNorm: true, windows: qwenWindows(json, layers) }),
    keys: (config) => ({
      attention_bias: config.bias.qkv,
      use_sliding_window: windowOf(config) !== null,
      sliding_window: windowOf(config),
      layer_types: layerTypes(config),
    }),
  },
  {
    type: 'gemma2',
    architecture: 'Gemma2ForCausalLM',
    model: Gemma2,
    own: (json, { layers, width }) => ({
      ...gemmaScales(json, width),
      ...softCaps(json),
      windows: windowsOf(json, layers, json.count('sliding_window', 4096), (i) => i % 2 === 0),
    }),
    keys: (config) => ({
      hidden_activation: config.activation,
      query_pre_attn_scalar: config.scale ** -2,
      attn_logit_softcapping: config.attentionSoftCap ?? null,
      final_logit_softcapping: config.logitSoftCap ?? null,
      sliding_window: windowOf(config),
      layer_types: layerTypes(config),
    }),
  },
  {
    type: 'gemma3_text',
    architecture: 'Gemma3ForCausalLM',
    model: Gemma3,
    own: (json, { layers, width }) => {
      const every = Number(json.json.sliding_window_pattern ?? 6)
      const windows = windowsOf(json, layers, json.count('sliding_window', 4096), (i) => (i + 1) % every !== 0)
      const types = json.json.rope_parameters as Record<string, ConfigJson> | undefined
      const whole = { rope_theta: 1e6, ...json.json }
      const full = readRope(json.who, whole, types?.full_attention)
      const { rope_scaling: _, rope_theta: __, ...rest } = json.json
      const local = { ...rest, rope_theta: json.positive('rope_local_base_freq', 10000) }
      const sliding = readRope(json.who, local, types?.sliding_attention ?? {})
      return {
        ...gemmaScales(json, width),
        ...softCaps(json),
        qkNorm: true,
        windows,
        rope: windows.map((w) => (w === null ? full : sliding)),
      }
    },
    keys: (config) => ({
      hidden_activation: config.activation,
      query_pre_attn_scalar: config.scale ** -2,
      attn_logit_softcapping: config.attentionSoftCap ?? null,
      final_logit_softcapping: config.logitSoftCap ?? null,
      sliding_window: windowOf(config),
      layer_types: layerTypes(config),
    }),
  },
]

/** `rope_parameters` of transformers 5, and the two keys of the versions before it. */
function ropeKeys({ rope, windows }: DecoderConfig): ConfigJson {
  const of = (r: DecoderConfig['rope'][number]) => ({
    ...Object.fromEntries(Object.entries(r.parameters).filter(([, v]) => v !== undefined)),
    rope_type: r.kind,
    rope_theta: r.base,
  })
  const full = windows.indexOf(null)
  const sliding = windows.findIndex((w) => w !== null)
  const [a, b] = [rope[Math.max(full, 0)], rope[Math.max(sliding, 0)]]
  if (a.base !== b.base || a.kind !== b.kind)
    return {
      rope_theta: a.base,
      rope_local_base_freq: b.base,
      rope_parameters: { full_attention: of(a), sliding_attention: of(b) },
      ...(a.kind === 'default' ? {} : { rope_scaling: of(a) }),
    }
  return {
    rope_theta: a.base,
    rope_parameters: of(a),
    ...(a.kind === 'default' ? {} : { rope_scaling: of(a) }),
  }
}

/** The decoders of the Llama family in Hugging Face folders. */
export const decoderFolders: readonly FolderFormat<Decoder>[] = FAMILIES.map(
  ({ type, architecture, model, own, keys }) => ({
    type,

    build(json, options) {
      const base = common(json, options)
      return new model({ ...base, ...own(json, base) })
    },

    /** Old files have the angles as a buffer, and tied ones the output layer once more. */
    nameOf(fileName, decoder) {
      if (fileName.endsWith('rotary_emb.inv_freq')) return null
      if (fileName === 'lm_head.weight' && decoder.lm_head === null) return null
      return fileName
    },

    config(decoder) {
      const { config } = decoder
      return {
        architectures: [architecture],
        model_type: type,
        vocab_size: config.vocabSize,
        max_position_embeddings: config.context,
        hidden_size: config.width,
        intermediate_size: config.hidden,
        num_hidden_layers: config.layers,
        num_attention_heads: config.heads,
        num_key_value_heads: config.kvHeads,
        head_dim: config.depth,
        hidden_act: config.activation,
        rms_norm_eps: config.eps,
        initializer_range: config.initializerRange,
        attention_dropout: config.dropout,
        tie_word_embeddings: config.tied,
        pad_token_id: config.padId,
        torch_dtype: dtypeName(config.dtype),
        ...ropeKeys(config),
        ...keys(config),
      }
    },

    keeps: (it): it is Decoder => it instanceof model,
  }),
)
