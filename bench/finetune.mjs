// Fine-tuning beside transformers and peft: the time of a step and the peak of resident memory, each program in a fresh process, on the same random
// weights' shapes and tokens; and what it costs to load a folder of about 1 GB.
// `node bench/finetune.mjs [steps] [names, with commas between]`, a name being such as gpt2, llama, bert, load, tiny, full, lora, float32, bfloat16, eager.
import { execFile } from 'node:child_process'
import { createReadStream, mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { peerPython, root } from './harness.mjs'

const steps = Number(process.argv[2] ?? 8)
const wanted = process.argv[3]?.split(',') ?? []
const threads = availableParallelism()
/** Times that a folder is loaded by each. */
const LOADS = 5
const MODELS = {
  gpt2: { title: 'GPT-2 124M', layers: 12, width: 768, heads: 12, vocab: 50257, batch: 4, context: 256 },
  llama: {
    title: 'Llama 150M',
    layers: 16,
    width: 768,
    heads: 12,
    kvHeads: 4,
    hidden: 2048,
    vocab: 32000,
    batch: 4,
    context: 256,
  },
  bert: { title: 'BERT-base', layers: 12, width: 768, heads: 12, vocab: 30522, batch: 8, context: 128 },
  tiny: {
    kind: 'gpt2',
    title: 'GPT-2 of two layers',
    layers: 2,
    width: 64,
    heads: 2,
    vocab: 997,
    batch: 2,
    context: 32,
  },
}
const isWanted = (...names) => {
  const ofKind = (list) =>
    !wanted.some((w) => list.includes(w)) || names.some((n) => list.includes(n) && wanted.includes(n))
  return [Object.keys(MODELS).concat('load'), ['full', 'lora'], ['float32', 'bfloat16'], ['eager', 'compiled']].every(
    (list) => (names.some((n) => list.includes(n)) ? ofKind(list) : true),
  )
}
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1]
const GB = (bytes) => `${(bytes / 1e9).toFixed(2)} GB`

async function run(own, options) {
  const command = own ? process.execPath : peerPython()
  if (!command) throw new Error('its environment is not there: npm run bench sets it up')
  const script = join(root, own ? 'bench/own/finetune.mjs' : 'bench/peers/finetune_torch.py')
  const { stdout } = await promisify(execFile)(command, [script, JSON.stringify(options)], { maxBuffer: 1 << 26 })
  return JSON.parse(stdout.trim().split('\n').at(-1))
}

/** Runs programs by turns, each `rounds` times, and tells each beside the first. */
async function compare(title, programs, rounds = 1) {
  console.log(`\n${title}`)
  const runs = programs.map(() => [])
  for (let round = 0; round < rounds; round++)
    for (const [i, [, own, options]] of programs.entries())
      runs[i].push(await run(own, options).catch((error) => ({ missing: error.message.trim().split('\n').at(-1) })))
  let first
  for (const [i, [name]] of programs.entries()) {
    const { missing, losses } = runs[i].find((r) => r.missing) ?? runs[i][0]
    if (missing) {
      console.log(`  ${name.padEnd(34)} missing: ${missing}`)
      continue
    }
    const seconds = runs[i].flatMap((r) => r.seconds)
    const here = { seconds: median(seconds), peak: Math.max(...runs[i].map((r) => r.peak)) }
    first ??= here
    const cells = [
      `${here.seconds.toFixed(3)} s`.padStart(9),
      `${(here.seconds / first.seconds).toFixed(2)}×`,
      `(${Math.min(...seconds).toFixed(3)} to ${Math.max(...seconds).toFixed(3)})`,
      GB(here.peak).padStart(9),
      `${(here.peak / first.peak).toFixed(2)}×`,
      losses ? `loss ${losses[0].toFixed(3)} → ${losses.at(-1).toFixed(3)}` : '',
    ]
    console.log(`  ${name.padEnd(34)} ${cells.join('  ')}`)
  }
}

for (const [kind, { title, ...sizes }] of Object.entries(MODELS)) {
  if (kind === 'tiny' && !wanted.includes('tiny')) continue
  for (const how of ['full', 'lora'])
    for (const dtype of ['float32', 'bfloat16']) {
      if (!isWanted(kind, how, dtype)) continue
      const options = { kind, ...sizes, how, dtype, steps, threads }
      const what = `${title}, ${how === 'lora' ? 'LoRA of rank 16' : 'all weights'}, ${dtype === 'bfloat16' ? 'bfloat16 (PyTorch: autocast)' : dtype}`
      const peer = how === 'lora' ? 'transformers and peft' : 'transformers'
      const rest = ['eager', 'compiled'].flatMap((mode) =>
        isWanted(kind, how, dtype, mode)
          ? [[`${peer}, ${mode}`, false, { ...options, compiled: mode === 'compiled' }]]
          : [],
      )
      await compare(`${what}, batch ${sizes.batch} × ${sizes.context}, AdamW, ${threads} threads, ${steps} steps`, [
        ['steepest', true, options],
        ...rest,
      ])
    }
}

if (isWanted('load') || wanted.length === 0) {
  const folder = mkdtempSync(join(tmpdir(), 'steepest-load-'))
  try {
    await run(true, { kind: 'write', folder, layers: 16, width: 1024, heads: 16, vocab: 32000, threads })
    // Both find the file in the memory of the system.
    for await (const _ of createReadStream(join(folder, 'model.safetensors'), { highWaterMark: 1 << 24 }));
    const title = `loading a folder of about 1 GB (a Llama, float32) and looking at every page, ${LOADS} times by turns`
    await compare(
      title,
      [
        ['steepest', true, { kind: 'load', folder, threads }],
        ['transformers', false, { kind: 'load', folder, threads }],
      ],
      LOADS,
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
