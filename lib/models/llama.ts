import { checkOptions } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import { Decoder, type DecoderConfig } from './decoder.js'

/** Sizes of a decoder that is built anew. */
export interface LlamaConfig {
  vocabSize: number
  /** Longest sequence. */
  context: number
  layers: number
  heads: number
  /** Heads of keys and values; as many as `heads` by default. */
  kvHeads?: number
  width: number
  /** Width of the feed-forward layers; by default 8/3 of `width`, rounded up to a multiple of 64. */
  hidden?: number
  /** Components of a head; width / heads by default. */
  depth?: number
  /** Base of the rotary angles; 10000 by default. */
  ropeBase?: number
  /** The output layer is the token embedding; false by default. */
  tied?: boolean
  eps?: number
  dropout?: number
  dtype?: DType
  /** Seed of the initial weights. */
  seed?: number
}

const KNOWN = [
  'vocabSize',
  'context',
  'layers',
  'heads',
  'kvHeads',
  'width',
  'hidden',
  'depth',
  'ropeBase',
  'tied',
  'eps',
  'dropout',
  'dtype',
  'seed',
]

/** The whole configuration of a decoder like Llama's. */
export function llamaConfig(who: string, config: LlamaConfig): DecoderConfig {
  checkOptions(who, config, KNOWN)
  const { vocabSize, context, layers, heads, width, ropeBase = 10000 } = config
  const depth = config.depth ?? Math.floor(width / heads)
  const rope = { base: ropeBase, kind: 'default', parameters: {}, context } as const
  return {
    vocabSize,
    context,
    layers,
    heads,
    kvHeads: config.kvHeads ?? heads,
    width,
    hidden: config.hidden ?? 64 * Math.ceil((8 * width) / 3 / 64),
    depth,
    eps: config.eps ?? 1e-6,
    rope: new Array(layers).fill(rope),
    windows: new Array(layers).fill(null),
    activation: 'silu',
    bias: { qkv: false, out: false, mlp: false },
    qkNorm: false,
    gemma: false,
    embedScale: 1,
    scale: 1 / Math.sqrt(depth),
    tied: config.tied ?? false,
    padId: null,
    dropout: config.dropout ?? 0,
    initializerRange: 0.02,
    dtype: config.dtype ?? 'float32',
    seed: config.seed ?? 0,
  }
}

const isWhole = (config: LlamaConfig | DecoderConfig): config is DecoderConfig => 'windows' in config

/** Llama (Touvron et al. 2023; Llama 3: Grattafiori et al. 2024), with the parameter names of its Hugging Face checkpoints. */
export class Llama extends Decoder {
  constructor(config: LlamaConfig | DecoderConfig) {
    super(isWhole(config) ? config : llamaConfig('Llama', config))
  }
}
