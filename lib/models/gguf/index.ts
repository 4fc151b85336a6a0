import { readAll } from '../../graph/evaluate.js'
import { SteepestError } from '../../errors.js'
import { parameters } from '../../nn/module.js'
import { cast } from '../../ops/elementwise.js'
import { reshape, transpose } from '../../ops/shape.js'
import type { Tensor } from '../../tensor/tensor.js'
import { Decoder } from '../decoder.js'
import { GPT2 } from '../gpt2.js'
import type { FolderModel } from '../hf.js'
import { Llama } from '../llama.js'
import { Mistral } from '../mistral.js'
import { Qwen2 } from '../qwen.js'
import { ropeAngles } from '../rope.js'
import { type GgufTensor, type GgufValue, writeGguf } from './file.js'
import { GGUF_TYPES, type GgufType } from './numbers.js'
import { ggufTokenizer } from './tokenizer.js'

export type { GgufType } from './numbers.js'

const uint = (value: number): GgufValue => ({ type: 'uint32', value })
const float = (value: number): GgufValue => ({ type: 'float32', value })

/** What a model is called in the file, its sizes, and its tensors by their names there. */
interface Written {
  readonly architecture: string
  readonly sizes: Readonly<Record<string, GgufValue>>
  readonly tensors: Readonly<Record<string, Tensor | number[]>>
  readonly vocabSize: number
}

const LAYER_NAMES: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
}
const GPT2_NAMES: Readonly<Record<string, string>> = {
  ln_1: 'attn_norm',
  'attn.c_attn': 'attn_qkv',
  'attn.c_proj': 'attn_output',
  ln_2: 'ffn_norm',
  'mlp.c_fc': 'ffn_up',
  'mlp.c_proj': 'ffn_down',
}
const OTHERS: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
  'transformer.wte.weight': 'token_embd.weight',
  'transformer.wpe.weight': 'position_embd.weight',
  'transformer.ln_f.weight': 'output_norm.weight',
  'transformer.ln_f.bias': 'output_norm.bias',
}

function nameOf(own: string): string {
  const [, layer, part, kind] = /^(?:model\.layers|transformer\.h)\.(\d+)\.(.+)\.(weight|bias)$/.exec(own) ?? []
  return layer === undefined ? OTHERS[own] : `blk.${layer}.${LAYER_NAMES[part] ?? GPT2_NAMES[part]}.${kind}`
}

/** Rows of a projection so that the pairs that are turned are neighbours, as llama.cpp has them for Llama. */
function neighbours(t: Tensor, heads: number): Tensor {
  const [rows, ...rest] = t.shape
  const pairs = reshape(t, [heads, 2, rows / heads / 2, -1])
  return reshape(transpose(pairs, [0, 2, 1, 3]), [rows, ...rest])
}

function refuse(model: FolderModel, got: string): never {
  throw new SteepestError('ARGUMENT', {
    who: 'export',
    rule: 'a GGUF file can hold GPT-2, Llama, Mistral and Qwen2 with plain, linear or Llama 3 rotary positions',
    got: `${model.constructor.name}${got}`,
    fix: 'Write a Hugging Face folder: leave the .gguf out of --out',
  })
}

function gpt2(model: GPT2): Written {
  const { context, width, layers, hidden, heads, eps, vocabSize, activation } = model.config
  if (!/^gelu_(new|pytorch_tanh)$/.test(activation)) refuse(model, ` with ${activation}`)
  const tensors = Object.entries(parameters(model)).map(([own, t]) => [
    nameOf(own),
    // Their linear layers have the inputs last.
    t.shape.length === 2 && own.includes('.c_') ? transpose(t) : t,
  ])
  return {
    architecture: 'gpt2',
    vocabSize,
    sizes: {
      context_length: uint(context),
      embedding_length: uint(width),
      block_count: uint(layers),
      feed_forward_length: uint(hidden),
      'attention.head_count': uint(heads),
      'attention.layer_norm_epsilon': float(eps),
    },
    tensors: Object.fromEntries(tensors) as Record<string, Tensor>,
  }
}

function decoder(model: Decoder): Written {
  const { config } = model
  const { heads, kvHeads, depth, context, windows } = config
  const [rope] = config.rope
  const isLlama = !(model instanceof Qwen2)
  // What llama.cpp computes for them, whatever config.json says.
  if (!/^(silu|swish)$/.test(config.activation)) refuse(model, ` with ${config.activation}`)
  const { frequencies, factor } = ropeAngles('rotary', rope, depth, context)
  if (!['default', 'linear', 'llama3'].includes(rope.kind) || factor !== 1)
    refuse(model, ` with ${rope.kind} positions`)
  const tensors: Record<string, Tensor | number[]> = {}
  for (const [own, t] of Object.entries(parameters(model))) {
    const turned = isLlama && /\.[qk]_proj\./.test(own)
    tensors[nameOf(own)] = turned ? neighbours(t, own.includes('.q_proj.') ? heads : kvHeads) : t
  }
  if (rope.kind === 'llama3')
    tensors['rope_freqs.weight'] = frequencies.map((f, i) => rope.base ** ((-2 * i) / depth) / f)
  const window = Math.min(...windows.map((w) => w ?? Number.POSITIVE_INFINITY))
  return {
    architecture: isLlama ? 'llama' : 'qwen2',
    vocabSize: config.vocabSize,
    sizes: {
      // llama.cpp has no window for these: up to its length all is the same.
      context_length: uint(Math.min(context, window)),
      embedding_length: uint(config.width),
      block_count: uint(config.layers),
      feed_forward_length: uint(config.hidden),
      vocab_size: uint(config.vocabSize),
      'attention.head_count': uint(heads),
      'attention.head_count_kv': uint(kvHeads),
      'attention.key_length': uint(depth),
      'attention.value_length': uint(depth),
      'attention.layer_norm_rms_epsilon': float(config.eps),
      'rope.dimension_count': uint(depth),
      'rope.freq_base': float(rope.base),
      ...(rope.kind === 'linear'
        ? {
            'rope.scaling.type': { type: 'string', value: 'linear' } as const,
            'rope.scaling.factor': float(Number(rope.parameters.factor)),
          }
        : {}),
    },
    tensors,
  }
}

function written(model: FolderModel): Written {
  if (model instanceof GPT2) return gpt2(model)
  const known = model instanceof Llama || model instanceof Mistral || model instanceof Qwen2
  return known && model instanceof Decoder ? decoder(model) : refuse(model, '')
}

/** The type of a tensor: vectors and positions stay float32, and what cannot be cut into blocks becomes float16. */
function typeOf(name: string, shape: readonly number[], type: GgufType): GgufType {
  if (shape.length === 1 || name.startsWith('position_embd')) return 'f32'
  return shape[shape.length - 1] % GGUF_TYPES[type].block === 0 ? type : 'f16'
}

/**
 * Writes a model as a GGUF file for llama.cpp: GPT-2, Llama, Mistral (its window becomes the context) and Qwen2, with a tokenizer of
 * byte-level pairs. The file as a whole or not at all.
 *
 * @param tokenizer its files by name, as a folder has them
 * @param type of matrices: `f32`, `f16`, `bf16`, or `q8_0`, whole numbers of 8 bits with a unit for each 32
 * @throws SteepestError ARGUMENT or FORMAT for what such a file cannot hold
 */
export async function saveGguf(
  path: string,
  model: FolderModel,
  tokenizer: Readonly<Record<string, string>>,
  type: GgufType = 'f16',
): Promise<void> {
  if (!Object.hasOwn(GGUF_TYPES, type))
    throw new SteepestError('OPTION', {
      who: 'export',
      rule: `the type must be ${Object.keys(GGUF_TYPES).join(', ')}`,
      got: type,
    })
  const { architecture, sizes, tensors, vocabSize } = written(model)
  const header: Record<string, GgufValue> = {
    'general.architecture': { type: 'string', value: architecture },
    'general.name': { type: 'string', value: model.constructor.name },
    'general.file_type': uint(GGUF_TYPES[type].fileType),
    'general.quantization_version': uint(2),
    ...Object.fromEntries(Object.entries(sizes).map(([key, value]) => [`${architecture}.${key}`, value])),
    ...ggufTokenizer(path, tokenizer, vocabSize),
  }
  const list = Object.entries(tensors).map(([name, t]): GgufTensor => {
    const shape = Array.isArray(t) ? [t.length] : t.shape
    const read = async () =>
      Array.isArray(t) ? Float32Array.from(t) : ((await readAll([cast(t, 'float32')]))[0] as Float32Array)
    return { name, shape, type: typeOf(name, shape, type), read }
  })
  await writeGguf(path, header, list)
}
