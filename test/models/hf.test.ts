import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { byteTokenizer, loadTokenizer } from '../../lib/data/index.js'
import { readAll } from '../../lib/graph/evaluate.js'
import { openSafetensors, type TensorSource, writeSafetensors } from '../../lib/io/safetensors.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { configOf, loadModel, saveModel } from '../../lib/models/hf.js'
import { parameters } from '../../lib/nn/module.js'

const sizes = { vocabSize: 31, context: 16, layers: 2, heads: 2, width: 8, seed: 3 }

function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'steepest-'))
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

async function numbers(model: GPT2): Promise<Record<string, number[]>> {
  const named = parameters(model)
  const values = await readAll(Object.values(named))
  return Object.fromEntries(Object.keys(named).map((name, i) => [name, [...values[i]]]))
}

/** What a folder's tensors are, to be written under other names and types. */
async function sourcesOf(dir: string): Promise<TensorSource[]> {
  const file = await openSafetensors(dir)
  const out: TensorSource[] = []
  for (const { name, dtype, shape, bytes } of file.tensors.values()) {
    const data = new Uint8Array(bytes)
    await file.readInto(name, data)
    out.push({ name, dtype, shape, read: () => data })
  }
  await file.close()
  return out
}

async function saved(): Promise<{ dir: string; model: GPT2 }> {
  const dir = folder()
  const model = new GPT2(sizes)
  await saveModel(dir, model, byteTokenizer())
  return { dir, model }
}

describe('a Hugging Face folder', () => {
  test('gives back the model that was saved', async () => {
    const { dir, model } = await saved()
    const loaded = await loadModel(dir)
    expect(loaded).toBeInstanceOf(GPT2)
    expect(loaded.config).toEqual({ ...model.config, seed: 0 })
    expect(await numbers(loaded)).toEqual(await numbers(model))
    expect((await loadTokenizer(dir)).vocabSize).toBe(257)
    expect(configOf(loaded)).toEqual(configOf(model))
  })

  test('has the names and settings of Hugging Face', async () => {
    const { dir } = await saved()
    const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8'))
    expect(config).toMatchObject({
      model_type: 'gpt2',
      architectures: ['GPT2LMHeadModel'],
      n_embd: 8,
      n_head: 2,
      n_layer: 2,
      n_positions: 16,
      vocab_size: 31,
    })
    const names = (await sourcesOf(dir)).map((s) => s.name)
    expect(names).toContain('transformer.h.1.attn.c_attn.weight')
    expect(names).toContain('transformer.wte.weight')
    expect(names).toHaveLength(2 + 2 * 12 + 2)
  })

  test('in shards, without the prefix, with masks and the tied output layer', async () => {
    const { dir, model } = await saved()
    const sources = (await sourcesOf(dir)).map((s) => ({ ...s, name: s.name.replace('transformer.', '') }))
    const embedding = sources.find((s) => s.name === 'wte.weight')!
    const mask: TensorSource = { name: 'h.0.attn.bias', dtype: 'float32', shape: [1], read: () => new Uint8Array(4) }
    const all = [...sources, { ...embedding, name: 'lm_head.weight' }, mask]
    const other = folder()
    const map: Record<string, string> = {}
    for (const [i, part] of [all.slice(0, 9), all.slice(9)].entries()) {
      const shard = `model-0000${i + 1}-of-00002.safetensors`
      await writeSafetensors(join(other, shard), part)
      for (const { name } of part) map[name] = shard
    }
    writeFileSync(join(other, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }))
    writeFileSync(join(other, 'config.json'), readFileSync(join(dir, 'config.json')))
    expect(await numbers(await loadModel(other))).toEqual(await numbers(model))
  })

  test('takes the dtype of the file, or the one that is asked for', async () => {
    const dir = folder()
    const model = new GPT2({ ...sizes, dtype: 'bfloat16' })
    await saveModel(dir, model)
    const as = async (dtype?: 'float32' | 'float64') => {
      const loaded = await loadModel(dir, { dtype })
      return [loaded.transformer.wte.weight.dtype, await numbers(loaded)] as const
    }
    const expected = await numbers(model)
    expect(await as()).toEqual(['bfloat16', expected])
    expect(await as('float32')).toEqual(['float32', expected])
    expect(await as('float64')).toEqual(['float64', expected])
  })

  test('16-bit floats become float32', async () => {
    const { dir } = await saved()
    const half = (await sourcesOf(dir)).map((s) => {
      const size = s.shape.reduce((n, d) => n * d, 1)
      return {
        ...s,
        dtype: 'F16' as const,
        read: () => new Uint8Array(Uint16Array.from({ length: size }, () => 0x3c00 + 0x200).buffer),
      }
    })
    await writeSafetensors(join(dir, 'model.safetensors'), half)
    const loaded = await loadModel(dir)
    expect(loaded.transformer.wte.weight.dtype).toBe('float32')
    expect(new Set(Object.values(await numbers(loaded)).flat())).toEqual(new Set([1.5]))
  })
})

describe('what does not fit is one sentence', () => {
  async function withConfig(changes: Record<string, unknown>): Promise<string> {
    const { dir } = await saved()
    const path = join(dir, 'config.json')
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...changes }))
    return dir
  }

  test.each<[Record<string, unknown>, string]>([
    [{ model_type: 'mamba' }, '`model_type` must be one that steepest has: gpt2, llama, '],
    [{ model_type: undefined }, 'got none'],
    [
      { activation_function: 'tanh' },
      '`activation_function` must be "silu" or "swish" or "relu" or "gelu" or "gelu_new" or "gelu_pytorch_tanh" (steepest has no other); got "tanh"',
    ],
    [
      { scale_attn_by_inverse_layer_idx: true },
      '`scale_attn_by_inverse_layer_idx` must be false (steepest has no other); got true',
    ],
    [{ tie_word_embeddings: false }, '`tie_word_embeddings` must be true (steepest has no other); got false'],
    [{ n_embd: 0 }, '`n_embd` must be a whole number of 1 or more; got 0'],
    [{ n_layer: undefined }, '`n_layer` must be a whole number of 1 or more; got nothing'],
    [{ n_head: 3 }, '`n_head` must divide `n_embd`; got 3 for 8'],
    [{ layer_norm_epsilon: 'x' }, '`layer_norm_epsilon` must be a number above 0'],
    [{ vocab_size: 30 }, 'transformer.wte.weight] config.json asks for [30, 8]; got [31, 8]'],
    [{ n_layer: 1 }, 'a gpt2 of this config.json has no tensor transformer.h.1.'],
    [{ n_layer: 3 }, 'the weights of every layer must be there; got none for transformer.h.2.ln_1.weight and 11 more'],
  ])('%j', async (changes, message) => {
    await expect(loadModel(await withConfig(changes))).rejects.toThrow(message)
  })

  test('files that are not there', async () => {
    const { dir } = await saved()
    await expect(loadModel(join(dir, 'nowhere'))).rejects.toThrow(
      'a model is a folder with config.json and model.safetensors; got nothing of that name',
    )
    await expect(loadModel(join(dir, 'config.json'))).rejects.toThrow('got a file')
    await expect(loadModel(dir, { dytpe: 'float32' } as never)).rejects.toThrow('Did you mean `dtype`?')
    rmSync(join(dir, 'model.safetensors'))
    await expect(loadModel(dir)).rejects.toThrow('the folder holds model.safetensors or model.safetensors.index.json')
    writeFileSync(join(dir, 'config.json'), '{"model_type":')
    await expect(loadModel(dir)).rejects.toThrow('config.json] must be JSON')
    mkdirSync(join(dir, 'empty'))
    await expect(loadModel(join(dir, 'empty'))).rejects.toThrow('there is no such file or folder (ENOENT)')
  })

  test('only known models can be saved', async () => {
    await expect(saveModel(folder(), {} as never)).rejects.toThrow(
      'a folder can hold the models that steepest has; got Object',
    )
  })
})
