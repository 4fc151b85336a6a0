// What the bench of whole training steps trains: sizes, and batches that are the same numbers in every program (peers/works.py has the same).

/** By name; `rate` is what is counted a second, `flops` the floating-point operations of a step (6 a parameter and token, and attention's). */
export const WORKS = {
  A: gpt('small GPT', { layers: 6, width: 384, heads: 6, vocab: 256, batch: 16, context: 256 }),
  B: gpt('GPT-2 124M', { layers: 12, width: 768, heads: 12, vocab: 50257, batch: 1, context: 512 }),
  D1: { title: 'MLP, batch 512', kind: 'mlp', widths: [784, 1024, 1024, 10], batch: 512, lr: 1e-3, repetitions: 20 },
  D2: { title: 'CNN, 6 convolutions, 128 images of 3×32×32', kind: 'cnn', batch: 128, lr: 1e-3 },
  E: {
    title: 'BERT-base, classes of rows',
    kind: 'bert',
    layers: 12,
    width: 768,
    heads: 12,
    vocab: 30522,
    batch: 8,
    context: 128,
    lr: 5e-5,
    clip: 1,
    weightDecay: 0.01,
  },
  F: {
    title: 'Llama of 148 M',
    kind: 'llama',
    layers: 14,
    width: 768,
    hidden: 2048,
    heads: 12,
    vocab: 32000,
    batch: 2,
    context: 512,
    lr: 3e-4,
    clip: 1,
    weightDecay: 0.1,
  },
  G: { title: 'small MLP, batch 32', kind: 'mlp', widths: [32, 64, 64, 10], batch: 32, lr: 1e-3, repetitions: 3000 },
}

function gpt(title, sizes) {
  return { title, kind: 'gpt', lr: 1e-3, clip: 1, weightDecay: 0.1, ...sizes }
}

/** Batches that are made before the clock runs; a program goes round them. */
export const BATCHES = 4

/** A number below 2¹⁶ from the place of a value. */
const mixed = (i) => {
  let x = Math.imul(i, 0x9e3779b1)
  x ^= x >>> 15
  x = Math.imul(x, 0x85ebca77)
  return (x ^ (x >>> 13)) >>> 16
}

/** Rows of tokens that can be learned: three of four follow from the one before. */
function tokens(seed, rows, length, vocab) {
  const kinds = Math.min(vocab, 997)
  const out = new Int32Array(rows * length)
  for (let i = 0; i < out.length; i++) {
    const draw = mixed(seed + 2 * i)
    out[i] = i % length === 0 || draw % 4 === 0 ? mixed(seed + 2 * i + 1) % kinds : (out[i - 1] * 31 + 7) % kinds
  }
  return out
}

/** Batch number `n` of a work: typed arrays with their shapes. */
export function batchOf(work, n) {
  const { kind, batch, context, vocab } = work
  const seed = 10_000_019 * (n + 1)
  if (kind === 'gpt' || kind === 'llama') {
    const rows = tokens(seed, batch, context + 1, vocab)
    const part = (from) => {
      const data = new Int32Array(batch * context)
      for (let b = 0; b < batch; b++)
        data.set(rows.subarray(b * (context + 1) + from, b * (context + 1) + from + context), b * context)
      return { data, shape: [batch, context] }
    }
    return { inputIds: part(0), targets: part(1) }
  }
  if (kind === 'bert') {
    const inputIds = tokens(seed, batch, context, vocab)
    const labels = Int32Array.from({ length: batch }, (_, b) => inputIds[b * context] % 2)
    return { inputIds: { data: inputIds, shape: [batch, context] }, labels: { data: labels, shape: [batch] } }
  }
  const shape = kind === 'cnn' ? [batch, 3, 32, 32] : [batch, work.widths[0]]
  const each = shape.slice(1).reduce((a, b) => a * b, 1)
  const data = Float32Array.from({ length: batch * each }, (_, i) => mixed(seed + i) / 32768 - 1)
  // The class is a cue in the first numbers of the row.
  const labels = Int32Array.from({ length: batch }, (_, b) =>
    Math.floor(2.5 * (data[b * each] + data[b * each + 1] + 2)),
  )
  return { x: { data, shape }, labels: { data: labels, shape: [batch] } }
}

/** Tokens or rows of a step, and their name. */
export const countOf = ({ batch, context }) => (context ? [batch * context, 'tok/s'] : [1, 'steps/s'])

/** Floating-point operations of a step: six for each parameter in a product and token, and attention's (PaLM, appendix B). */
export function flopsOf(work, parameters) {
  const { kind, batch, context, layers, width, vocab } = work
  // A table that is only looked up is in no product; a GPT's is its last layer too.
  const multiplied = parameters - (kind === 'gpt' ? 0 : (vocab ?? 0) * width)
  if (context) return batch * context * (6 * multiplied + 12 * layers * context * width)
  if (kind === 'mlp') return batch * 6 * parameters
  // Each 3×3 convolution at each place; two multiply-adds forward, four backward.
  const sizes = [32, 32, 16, 16, 8, 8]
  const widths = CNN_WIDTHS
  return batch * sizes.reduce((sum, s, i) => sum + 6 * 9 * widths[i] * widths[i + 1] * s * s, 0)
}

/** Channels of the convolutional net: pairs of convolutions with a pooling after the second and the fourth. */
export const CNN_WIDTHS = [3, 64, 64, 128, 128, 256, 256]
