import { classesOf, labelKeys, labelsOf, problemOf } from './bert-folders.js'
import { dtypeName, type FolderFormat } from './config-json.js'
import { ResNet } from './resnet.js'
import { ViT } from './vit.js'

const isHead = (name: string): boolean => name.startsWith('classifier.')

/** Names of modules in transformers 5 and later, and those of files and of earlier ones. */
const RENAMED: readonly (readonly [modules: string, files: string])[] = [
  ['vit.layers.', 'vit.encoder.layer.'],
  ['.attention.q_proj.', '.attention.attention.query.'],
  ['.attention.k_proj.', '.attention.attention.key.'],
  ['.attention.v_proj.', '.attention.attention.value.'],
  ['.attention.o_proj.', '.attention.output.dense.'],
  ['.mlp.fc1.', '.intermediate.dense.'],
  ['.mlp.fc2.', '.output.dense.'],
]

/** A vision transformer in a Hugging Face folder. */
export const vitFolder: FolderFormat<ViT> = {
  type: 'vit',

  build(json, { dtype, dropout, head }) {
    const classes = head?.classes ?? classesOf(json)
    return new ViT({
      image: json.count('image_size', 224),
      patch: json.count('patch_size', 16),
      channels: json.count('num_channels', 3),
      layers: json.count('num_hidden_layers'),
      heads: json.count('num_attention_heads'),
      width: json.count('hidden_size'),
      hidden: json.count('intermediate_size'),
      activation: json.text('hidden_act', 'gelu'),
      qkvBias: json.flag('qkv_bias', true),
      eps: json.positive('layer_norm_eps', 1e-12),
      initializerRange: json.positive('initializer_range', 0.02),
      classes,
      labels: head ? head.labels : labelsOf(json),
      problem: head?.problem ?? problemOf(json, classes),
      dropout,
      dtype,
      seed: 0,
    })
  },

  // A bare model comes with a pooler that nothing reads; transformers 5 has names of its own for what it reads from such a file.
  nameOf: (name) =>
    name.startsWith('vit.pooler.') ? null : RENAMED.reduce((n, [modules, files]) => n.replace(modules, files), name),
  isHead,
  moduleNames: (name) => [...new Set([name, RENAMED.reduce((n, [modules, files]) => n.replace(files, modules), name)])],

  config({ config }) {
    return {
      architectures: ['ViTForImageClassification'],
      model_type: 'vit',
      image_size: config.image,
      patch_size: config.patch,
      num_channels: config.channels,
      num_hidden_layers: config.layers,
      num_attention_heads: config.heads,
      hidden_size: config.width,
      intermediate_size: config.hidden,
      hidden_act: config.activation,
      qkv_bias: config.qkvBias,
      layer_norm_eps: config.eps,
      hidden_dropout_prob: config.dropout,
      attention_probs_dropout_prob: config.dropout,
      initializer_range: config.initializerRange,
      torch_dtype: dtypeName(config.dtype),
      ...labelKeys(config),
    }
  },

  keeps: (model): model is ViT => model instanceof ViT,
}

/** A ResNet in a Hugging Face folder. */
export const resnetFolder: FolderFormat<ResNet> = {
  type: 'resnet',

  build(json, { dtype, head }) {
    json.only('layer_type', ['basic', 'bottleneck'])
    const list = (key: string, fallback: readonly number[]) => (json.json[key] as number[] | undefined) ?? fallback
    const classes = head?.classes ?? classesOf(json)
    return new ResNet({
      channels: json.count('num_channels', 3),
      stem: json.count('embedding_size', 64),
      widths: list('hidden_sizes', [256, 512, 1024, 2048]),
      depths: list('depths', [3, 4, 6, 3]),
      kind: json.text('layer_type', 'bottleneck') as 'basic' | 'bottleneck',
      activation: json.text('hidden_act', 'relu'),
      downsampleFirst: json.flag('downsample_in_first_stage', false),
      downsampleInBottleneck: json.flag('downsample_in_bottleneck', false),
      classes,
      labels: head ? head.labels : labelsOf(json),
      problem: head?.problem ?? problemOf(json, classes),
      dtype,
      seed: 0,
    })
  },

  // How many batches a norm has seen matters to nobody who moves its statistics by a fixed share.
  nameOf: (name) =>
    name.endsWith('num_batches_tracked')
      ? null
      : name.replace(/running_mean$/, 'runningMean').replace(/running_var$/, 'runningVar'),
  fileNameOf: (name) => name.replace(/runningMean$/, 'running_mean').replace(/runningVar$/, 'running_var'),
  isHead,

  config({ config }) {
    return {
      architectures: ['ResNetForImageClassification'],
      model_type: 'resnet',
      num_channels: config.channels,
      embedding_size: config.stem,
      hidden_sizes: config.widths,
      depths: config.depths,
      layer_type: config.kind,
      hidden_act: config.activation,
      downsample_in_first_stage: config.downsampleFirst,
      downsample_in_bottleneck: config.downsampleInBottleneck,
      torch_dtype: dtypeName(config.dtype),
      ...labelKeys(config),
    }
  },

  keeps: (model): model is ResNet => model instanceof ResNet,
}
