// Convolutions, forward and both gradients, and the training step of a small convolutional net against PyTorch with its channels last.
// `node bench/conv.mjs [rounds] [float32,bfloat16] [net,layers]`; BENCH_THREADS=1 BENCH_CLOCK=cpu counts the seconds that each process had a core,
// for a machine that has other work.
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { compare, peerPython, root } from './harness.mjs'

const threads = Number(process.env.BENCH_THREADS ?? availableParallelism())
const rounds = Number(process.argv[2] ?? 5)
const dtypes = (process.argv[3] ?? 'float32,bfloat16').split(',')
const works = (process.argv[4] ?? 'net,layers').split(',')

// [name, images, channels, size, output channels, kernel, stride, padding, groups]
const LAYERS = [
  ['3×3, 64 → 64 at 32²', 32, 64, 32, 64, 3, 1, 1, 1],
  ['3×3, 64 → 64 at 56²', 16, 64, 56, 64, 3, 1, 1, 1],
  ['3×3, 256 → 256 at 14²', 16, 256, 14, 256, 3, 1, 1, 1],
  ['3×3, 512 → 512 at 7²', 16, 512, 7, 512, 3, 1, 1, 1],
  ['3×3 in steps of 2, 64 → 128 at 56²', 16, 64, 56, 128, 3, 2, 1, 1],
  ['7×7 in steps of 2, 3 → 64 at 224²', 8, 3, 224, 64, 7, 2, 3, 1],
  ['1×1, 256 → 64 at 56²', 16, 256, 56, 64, 1, 1, 0, 1],
  ['1×1, 64 → 256 at 56²', 16, 64, 56, 256, 1, 1, 0, 1],
  ['3×3 depthwise, 128 at 28²', 32, 128, 28, 128, 3, 1, 1, 128],
  ['3×3 in 32 groups, 128 at 28²', 32, 128, 28, 128, 3, 1, 1, 32],
  ['5×5, 6 → 16 at 14²', 64, 6, 14, 16, 5, 1, 0, 1],
]

async function against(title, args, options) {
  await compare(
    title,
    [
      { name: 'steepest', command: process.execPath, args: [join(root, 'bench/own/conv.mjs'), ...args] },
      {
        name: 'PyTorch eager, channels last',
        command: peerPython(),
        args: [join(root, 'bench/peers/conv_torch.py'), ...args],
      },
    ],
    { rounds, ...options },
  )
}

for (const dtype of dtypes) {
  if (works.includes('net')) {
    await against(
      `Training step: 6 convolutions of 3×3 with batch norm, 64 images of 3×32×32, ${dtype === 'bfloat16' ? 'bfloat16 (PyTorch: autocast)' : dtype}, ${threads} threads`,
      ['net', threads, dtype, 64].map(String),
      { warm: 2, repetitions: 2, rate: (s) => `${(1 / s).toFixed(2)} steps/s` },
    )
  }
  if (!works.includes('layers')) continue
  for (const [name, n, c, size, o, kernel, stride, padding, groups] of LAYERS) {
    await against(
      `Convolution, forward and gradients: ${name}, ${n} images, ${dtype}, ${threads} threads`,
      ['layer', threads, dtype, n, c, size, o, kernel, stride, padding, groups].map(String),
      { warm: 2, repetitions: 3 },
    )
  }
}
