import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { byteTokenizer } from '../../lib/data/tokenizers.js'
import * as memory from '../../lib/memory/index.js'
import { type ConfigJson, ConfigReader } from '../../lib/models/config-json.js'
import { decoderFolders } from '../../lib/models/decoder-folders.js'
import { exportModel } from '../../lib/models/export.js'
import { encoded, f16Bits } from '../../lib/models/gguf/numbers.js'
import { type FolderModel, GPT2, loadModel, saveAdapter, saveModel } from '../../lib/models/index.js'
import { parameters, withTensors } from '../../lib/nn/module.js'
import { add, random } from '../../lib/index.js'
import type { Tensor } from '../../lib/tensor/tensor.js'

const dir = mkdtempSync(join(tmpdir(), 'steepest-export-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))
const at = (name: string) => join(dir, name)

const SIZES = {
  vocab_size: 257,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 64,
  initializer_range: 0.2,
}
const LLAMA3 = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
}
const build = (type: string, more: ConfigJson) =>
  decoderFolders
    .find((f) => f.type === type)!
    .build(new ConfigReader('config.json', { ...SIZES, ...more }), { dtype: 'float32', dropout: 0 })

beforeAll(async () => {
  const gpt = new GPT2({ vocabSize: 257, context: 40, layers: 2, heads: 2, width: 32, seed: 1 })
  for (const [name, model] of [
    ['gpt2', gpt],
    ['llama', build('llama', { rope_parameters: LLAMA3 })],
    ['mistral', build('mistral', { sliding_window: 20 })],
    ['qwen2', build('qwen2', { tie_word_embeddings: true })],
    ['qwen3', build('qwen3', {})],
    ['gelu', build('llama', { hidden_act: 'gelu' })],
    ['yarn', build('llama', { rope_parameters: { rope_type: 'yarn', factor: 4 } })],
  ] as const)
    await saveModel(at(name), model, byteTokenizer())
})

/** A plain reader of the parts that are looked at. */
function readGguf(path: string) {
  const file = readFileSync(path)
  let here = 8
  const u32 = () => file.readUInt32LE((here += 4) - 4)
  const u64 = () => Number(file.readBigUInt64LE((here += 8) - 8))
  const text = () => {
    const n = u64()
    return file.toString('utf8', here, (here += n))
  }
  const value = (kind: number): unknown => {
    if (kind === 4) return u32()
    if (kind === 5) return file.readInt32LE((here += 4) - 4)
    if (kind === 6) return file.readFloatLE((here += 4) - 4)
    if (kind === 7) return file[here++] === 1
    if (kind === 8) return text()
    const of = u32()
    return Array.from({ length: u64() }, () => value(of))
  }
  expect([file.toString('latin1', 0, 4), file.readUInt32LE(4)]).toEqual(['GGUF', 3])
  const [count, keys] = [u64(), u64()]
  const header = Object.fromEntries(Array.from({ length: keys }, () => [text(), value(u32())]))
  const infos = Array.from({ length: count }, () => {
    const name = text()
    const dims = Array.from({ length: u32() }, u64)
    return { name, dims, type: u32(), offset: u64() }
  })
  const data = 32 * Math.ceil(here / 32)
  const tensors = infos.map(({ offset, ...rest }) => {
    expect(offset % 32).toBe(0)
    return { ...rest, bytes: file.subarray(data + offset) }
  })
  return {
    header: header as Record<string, unknown>,
    tensors: Object.fromEntries(tensors.map((t) => [t.name, t])),
    file,
  }
}
const numbers = async (t: Tensor) => [...(await t.read())].map(Number)

describe('numbers of 16 and 8 bits', () => {
  test.each([
    [0, 0],
    [-0, 0x8000],
    [1, 0x3c00],
    [65504, 0x7bff],
    [65519.99, 0x7bff],
    [65520, 0x7c00],
    [-Infinity, 0xfc00],
    [2 ** -24, 1],
    [2 ** -25, 0],
    [1.5 * 2 ** -24, 2],
    [2 ** -14, 0x400],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [2 - 2 ** -12, 0x4000],
  ])('%f as a float16', (x, bits) => {
    expect(f16Bits(x)).toBe(bits)
  })

  test('blocks are within half a unit', () => {
    const values = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i * 7) * (i < 32 ? 3 : 0))
    const view = new DataView(encoded(values, 'q8_0').buffer)
    for (let i = 0; i < 64; i++) {
      const b = 34 * Math.floor(i / 32)
      const unit = i < 32 ? 3 / 127 : 0
      expect(Math.abs(view.getInt8(b + 2 + (i % 32)) * unit - values[i])).toBeLessThan(0.52 * unit + 1e-9)
    }
  })
})

describe('a GGUF file', () => {
  test('of a GPT-2 has its weights, with outputs first, and its tokenizer', async () => {
    await exportModel(at('gpt2'), at('gpt2.gguf'), { type: 'f32' })
    const { header, tensors } = readGguf(at('gpt2.gguf'))
    expect(header).toMatchObject({
      'general.architecture': 'gpt2',
      'gpt2.context_length': 40,
      'gpt2.attention.head_count': 2,
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': 'gpt-2',
      'tokenizer.ggml.eos_token_id': 256,
    })
    const tokens = header['tokenizer.ggml.tokens'] as string[]
    expect([tokens.length, tokens[256], (header['tokenizer.ggml.token_type'] as number[])[256]]).toEqual([
      257,
      '<|endoftext|>',
      3,
    ])
    const { dims, type, bytes } = tensors['blk.1.ffn_up.weight']
    expect([dims, type]).toEqual([[32, 128], 0])
    const weight = await numbers(parameters(await loadModel(at('gpt2')))['transformer.h.1.mlp.c_fc.weight'])
    for (const [i, j] of [
      [0, 0],
      [31, 127],
      [5, 77],
    ])
      expect(bytes.readFloatLE(4 * (j * 32 + i))).toBe(weight[i * 128 + j])
    expect(Object.keys(tensors).sort()).toEqual(
      [
        ...['token_embd.weight', 'position_embd.weight', 'output_norm.weight', 'output_norm.bias'],
        ...[0, 1].flatMap((l) =>
          ['attn_norm', 'attn_qkv', 'attn_output', 'ffn_norm', 'ffn_up', 'ffn_down'].flatMap((n) =>
            ['weight', 'bias'].map((kind) => `blk.${l}.${n}.${kind}`),
          ),
        ),
      ].sort(),
    )
  })

  test('of a Llama has its pairs beside each other and the factors of its angles', async () => {
    await exportModel(at('llama'), at('llama.gguf'), { type: 'bf16' })
    const { header, tensors } = readGguf(at('llama.gguf'))
    expect(header).toMatchObject({
      'general.architecture': 'llama',
      'llama.attention.head_count_kv': 2,
      'general.file_type': 32,
    })
    const weight = await numbers(parameters(await loadModel(at('llama')))['model.layers.0.self_attn.k_proj.weight'])
    const { type, bytes } = tensors['blk.0.attn_k.weight']
    expect(type).toBe(30)
    // Row 2i of a head is its row i, row 2i + 1 its row i + depth / 2.
    for (const [row, from] of [
      [0, 0],
      [1, 4],
      [2, 1],
      [7, 7],
      [8, 8],
      [9, 12],
    ]) {
      const bits = bytes.readUInt16LE(2 * row * 32)
      const value = new DataView(new Uint32Array([bits * 65536]).buffer).getFloat32(0, true)
      expect(Math.abs(value - weight[from * 32])).toBeLessThan(0.005 * Math.abs(weight[from * 32]))
    }
    const factors = tensors['rope_freqs.weight']
    expect(factors.dims).toEqual([4])
    expect(factors.bytes.readFloatLE(12)).toBeCloseTo(8)
  })

  test('of a Mistral has the window as its context, of a Qwen2 biases; matrices in blocks', async () => {
    await exportModel(at('mistral'), at('mistral.gguf'), { type: 'q8_0' })
    const mistral = readGguf(at('mistral.gguf'))
    expect(mistral.header['llama.context_length']).toBe(20)
    expect([mistral.tensors['blk.0.attn_q.weight'].type, mistral.tensors['blk.0.attn_norm.weight'].type]).toEqual([
      8, 0,
    ])
    await exportModel(at('qwen2'), at('qwen2.gguf'))
    const { tensors, header } = readGguf(at('qwen2.gguf'))
    expect(header['general.architecture']).toBe('qwen2')
    expect([tensors['blk.0.attn_v.bias'].dims, tensors['output.weight'], tensors['token_embd.weight'].type]).toEqual([
      [16],
      undefined,
      1,
    ])
  })

  test.each<[string, string, RegExp]>([
    ['qwen3', 'a.gguf', /a GGUF file can hold GPT-2, Llama, Mistral and Qwen2.*Qwen3/],
    ['yarn', 'a.gguf', /Llama with yarn positions/],
    ['gelu', 'a.gguf', /Llama with gelu\./],
    ['gpt2', 'gpt2.gguf', /nothing is written over/],
    ['gpt2', 'llama', /nothing is written over/],
  ])('of %s as %s is refused in one sentence', async (name, out, message) => {
    const before = existsSync(at(out))
    await expect(exportModel(at(name), at(out))).rejects.toThrow(message)
    expect(existsSync(at(out))).toBe(before)
  })

  test('with a tokenizer of SentencePiece is refused', async () => {
    await saveModel(at('pieces'), await loadModel(at('gpt2')), {
      files: () => ({ 'tokenizer.json': '{"model": {"type": "BPE", "byte_fallback": true, "vocab": {}}}' }),
    })
    await expect(exportModel(at('pieces'), at('p.gguf'))).rejects.toThrow(/byte-level pairs; got BPE of SentencePiece/)
  })
})

test.each(['gpt2', 'llama'])('additions in the format of PEFT are merged into a %s', async (name) => {
  const model = await loadModel<FolderModel>(at(name))
  const fresh = memory.lora(model, { rank: 4, alpha: 8 })
  let n = 0
  const moved = Object.fromEntries(
    Object.entries(parameters(fresh)).map(([key, t]) => [
      key,
      add(t, random.normal(random.key(n++), t.shape, { std: 0.1 })),
    ]),
  )
  const adapted = withTensors(fresh, moved)
  await saveAdapter(at(`${name}-adapter`), adapted, at(name))
  await exportModel(at(name), at(`${name}-merged`), { adapter: at(`${name}-adapter`) })
  const [own, merged, base] = [adapted.merged(), await loadModel(at(`${name}-merged`)), model].map(parameters)
  let changed = 0
  for (const key of Object.keys(base)) {
    const [a, b, c] = [await numbers(own[key]), await numbers(merged[key]), await numbers(base[key])]
    a.forEach((x, i) => expect(Math.abs(x - b[i])).toBeLessThan(1e-5))
    changed += Number(a.some((x, i) => x !== c[i]))
  }
  expect(changed).toBeGreaterThan(3)
  writeFileSync(
    join(at(`${name}-adapter`), 'adapter_config.json'),
    '{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": true}',
  )
  await expect(exportModel(at(name), at('no'), { adapter: at(`${name}-adapter`) })).rejects.toThrow(/no DoRA/)
  expect(existsSync(at('no'))).toBe(false)
})
