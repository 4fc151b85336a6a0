// Whole training steps, forward, backward, clipping and AdamW, against PyTorch, JAX and the libraries of JavaScript, in interleaved rounds.
// `node bench/training.mjs [--works A,B,D1,D2,E,F,G] [--dtypes float32,bfloat16] [--rounds 5] [--peers eager,compiled,jax,tfjs,jax-js,mlx] [--threads N]
// [--out FILE]`: prints a table, and writes FILE.json and FILE.svg (bench/results/DATE-training).
// All begin with the same weights and see the same batches; the losses of all are printed, and are to agree within rounding.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { measurePeak } from '../dist/train/gpt/measure.js'
import { contest, median, peerNode, peerPython, ratioOf, root } from './harness.mjs'
import { barsSvg } from './picture.mjs'
import { BATCHES, CNN_WIDTHS, countOf, flopsOf, WORKS } from './works.mjs'

const ALL_PEERS = ['eager', 'compiled', 'jax', 'tfjs', 'jax-js', 'mlx']
const { values } = parseArgs({
  options: {
    works: { type: 'string', default: Object.keys(WORKS).join() },
    dtypes: { type: 'string', default: 'float32,bfloat16' },
    rounds: { type: 'string', default: '5' },
    peers: { type: 'string', default: ALL_PEERS.join() },
    threads: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string', default: join(root, 'bench/results', `${new Date().toISOString().slice(0, 10)}-training`) },
  },
})
const list = (text, known) =>
  text.split(',').map((name) => {
    if (known.includes(name)) return name
    console.error(`There is no ${name} here; there are ${known.join(', ')}`)
    process.exit(1)
  })
const works = list(values.works, Object.keys(WORKS))
const dtypes = list(values.dtypes, ['float32', 'bfloat16'])
const peers = list(values.peers, ALL_PEERS)
const { threads } = values
const rounds = Number(values.rounds)
const here = (file) => join(root, 'bench', file)

const own = (...args) => ({ command: process.execPath, args: [here('own/training.mjs'), ...args] })

/** The programs that train a work; JavaScript's train the perceptrons, in float32. */
function contestants(name, dtype, folder) {
  const work = WORKS[name]
  const told = JSON.stringify({ ...work, batches: BATCHES, ...(work.kind === 'cnn' && { widths: CNN_WIDTHS }) })
  const python = (file, ...more) => ({
    command: peerPython(),
    args: [here(`peers/${file}`), told, dtype, threads, folder, ...more],
  })
  const script = (library) => ({
    command: process.execPath,
    args: [here('peers/training_js.mjs'), name, threads, folder, library, peerNode()],
  })
  const all = {
    eager: { name: 'PyTorch eager', ...python('training_torch.py', 'eager') },
    compiled: { name: 'PyTorch compiled', ...python('training_torch.py', 'compiled') },
    jax: { name: 'JAX', ...python('training_jax.py') },
    tfjs: { name: 'TensorFlow.js', ...script('tfjs') },
    'jax-js': { name: 'jax-js', ...script('jax-js') },
    mlx: { name: '@frost-beta/mlx', ...script('mlx') },
  }
  const scripted = ['tfjs', 'jax-js', 'mlx']
  const suits = (peer) =>
    scripted.includes(peer)
      ? work.kind === 'mlp' && dtype === 'float32'
      : peer !== 'jax' || !['bert', 'llama'].includes(work.kind)
  return [{ name: 'steepest', ...own(name, dtype, threads, folder) }, ...peers.filter(suits).map((peer) => all[peer])]
}

const fixed = (value, digits = 2) => (value === undefined ? '' : value.toFixed(digits))

function print(work, dtype, told, peak) {
  const [count, unit] = countOf(work)
  console.log(
    `  ${['', 'speed', 'its time over ours (spread)', 'of peak', 'memory', 'first step', 'timer late', 'loss'].map((h, i) => (i ? h.padStart([0, 14, 29, 9, 9, 12, 12, 22][i]) : ''.padEnd(18))).join('')}`,
  )
  for (const c of told) {
    if (c.missing) {
      console.log(`  ${c.name.padEnd(18)}missing: ${c.missing}`)
      continue
    }
    const speed = count / c.seconds
    console.log(
      `  ${c.name.padEnd(18)}${`${speed >= 100 ? Math.round(speed) : speed.toPrecision(3)} ${unit}`.padStart(14)}` +
        (c.ratio ? `${fixed(c.ratio.median)} (${fixed(c.ratio.low)} to ${fixed(c.ratio.high)})` : '').padStart(29) +
        `${Math.round((100 * c.flops) / c.seconds / peak[dtype])} %`.padStart(9) +
        (c.peakBytes ? `${fixed(c.peakBytes / 1e9)} GB` : '').padStart(9) +
        `${fixed(c.firstStep, 1)} s`.padStart(12) +
        (c.late === undefined ? '' : `${Math.round(1000 * c.late)} ms`).padStart(12) +
        `${fixed(c.losses[0], 5)} → ${fixed(c.losses.at(-1), 5)}`.padStart(22),
    )
  }
}

const results = {
  date: new Date().toISOString(),
  machine: `${cpus()[0].model}, ${threads} threads`,
  node: process.version,
  peak: {},
  works: [],
}
for (const dtype of dtypes) results.peak[dtype] = await measurePeak(dtype)
const folder = mkdtempSync(join(tmpdir(), 'steepest-bench-'))
try {
  for (const name of works) {
    const work = WORKS[name]
    const weights = join(folder, name)
    mkdirSync(weights)
    if (spawnSync(process.execPath, own('--init', name, weights).args, { stdio: 'inherit' }).status !== 0)
      process.exit(1)
    for (const dtype of dtypes) {
      console.log(
        `\n${name}: ${work.title}${work.context ? `, ${work.batch} × ${work.context} tokens` : ''}, ${dtype === 'bfloat16' ? 'bfloat16 (PyTorch: autocast)' : dtype}, ${threads} threads`,
      )
      const repetitions = work.repetitions ?? 1
      const all = await contest(contestants(name, dtype, weights), { rounds, repetitions, warm: repetitions + 1 })
      const [first] = all
      if (first.missing) throw new Error(`steepest itself failed: ${first.missing}`)
      const flops = flopsOf(work, JSON.parse(first.ready).parameters)
      const told = all.map((c) => {
        if (c.missing) return c
        const ready = JSON.parse(c.ready)
        return {
          name: c.name,
          version: ready.version,
          seconds: median(c.answers.map((a) => a.seconds)),
          ratio: c === first ? undefined : ratioOf(c, first),
          flops,
          peakBytes: c.answers.at(-1).peak,
          startOfStep: ready.start,
          firstStep: ready.first,
          late: c.answers[0].late === undefined ? undefined : Math.max(...c.answers.map((a) => a.late)),
          losses: [ready.losses, c.warmed.losses, ...c.answers.map((a) => a.losses)].flat(),
        }
      })
      print(work, dtype, told, results.peak)
      results.works.push({
        name,
        title: work.title,
        dtype,
        programs: told.map(({ losses, ...c }) => ({ ...c, losses: losses?.slice(0, 20) })),
      })
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
writeFileSync(`${values.out}.json`, `${JSON.stringify(results, null, 1)}\n`)
writeFileSync(`${values.out}.svg`, barsSvg(results))
console.log(`\nwritten: ${values.out}.json and .svg`)
