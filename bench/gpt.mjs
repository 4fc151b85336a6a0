// Whole training steps of a GPT against PyTorch: forward, backward, clipping and AdamW. `node bench/gpt.mjs [rounds]`
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { compare, peerPython, root } from './harness.mjs'

const threads = availableParallelism()
const A = { layers: 6, width: 384, heads: 6, context: 256, vocab: 256, batch: 16 }
const rounds = Number(process.argv[2] ?? 5)
const which = process.argv[3] ?? 'float32,bfloat16'

for (const dtype of which.split(',')) {
  const sizes = [...Object.values(A), threads].map(String)
  const torch = (how) => ({
    name: `PyTorch ${how}`,
    command: peerPython(),
    args: [join(root, 'bench/peers/gpt_torch.py'), ...sizes, dtype, how],
  })
  const tokens = A.batch * A.context
  await compare(
    `GPT, ${A.layers} layers, width ${A.width}, ${A.batch} × ${A.context} tokens, ${dtype === 'bfloat16' ? 'bfloat16 (PyTorch: autocast)' : dtype}, ${threads} threads`,
    [
      { name: 'steepest', command: process.execPath, args: [join(root, 'bench/own/gpt.mjs'), ...sizes, dtype] },
      torch('eager'),
      ...(process.argv[4] === 'eager' ? [] : [torch('compiled')]),
    ],
    { rounds, warm: 2, rate: (s) => `${Math.round(tokens / s)} tok/s` },
  )
}
