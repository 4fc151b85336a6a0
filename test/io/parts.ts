import type { CheckpointParts, TensorSource } from '../../lib/io/checkpoint.js'

/** Numbers that differ from step to step, in chunks so that several writes are made. */
export function source(name: string, step: number, n = 300): TensorSource {
  const values = Float32Array.from({ length: n }, (_, i) => Math.sin(i + step))
  const bytes = new Uint8Array(values.buffer)
  return {
    name,
    dtype: 'float32',
    shape: [n],
    async *read() {
      yield bytes.subarray(0, 400)
      yield bytes.subarray(400)
    },
  }
}

/** A small checkpoint whose every number depends on the step. */
export const partsOf = (step: number): CheckpointParts => ({
  config: { model_type: 'gpt2', n_layer: 2 },
  model: [source('b.weight', step), source('a.weight', step + 0.5)],
  optimizer: [source('a.weight.m', step * 2)],
  state: { schedule: { step }, data: { epoch: 0, position: step * 8 }, random: [1, 2, step] },
  validationLoss: 10 / (step + 1),
  tokenizer: { 'tokenizer.json': '{"model":{}}' },
})
