// Every optimizer's step alone, over GPT-2's 148 tensors and over as many parameters as memory speed shows in one tensor, beside a plain loop over as many
// arrays and beside its peers. `node bench/optim.mjs [--rounds N] [--only NAME,…] [--work gpt2,one,hundred] [--size N] [--width N] [--without compiled,…] [--record FILE]`;
// the work `hundred` is as many parameters in a hundred tensors; `--size` and `--width` (of GPT-2) make it small enough to see that every row runs.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { optim } from '../dist/index.js'
import { compare, peerPython, root } from './harness.mjs'
import { casesOf, gpt2Shapes, layerShapes } from './optim-cases.mjs'

const { values: args } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    only: { type: 'string' },
    work: { type: 'string', default: 'gpt2,one' },
    size: { type: 'string', default: '100000000' },
    width: { type: 'string', default: '768' },
    without: { type: 'string', default: '' },
    record: { type: 'string' },
  },
})
const threads = availableParallelism()
const only = args.only?.split(',')
const without = args.without.split(',').filter(Boolean)
const wide = Number(args.size)
const width = Number(args.width)
const hundred = Array.from({ length: 100 }, () => [wide / 100])

const folder = mkdtempSync(join(tmpdir(), 'steepest-bench-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

/** The plain loop as a program, or why there is none. */
function plainLoop() {
  const program = join(folder, 'plain')
  const flags = ['-O3', '-march=native', '-std=c++20', '-pthread']
  const made = spawnSync('c++', [...flags, join(root, 'bench/own/plain.cc'), '-o', program], { encoding: 'utf8' })
  if (made.status === 0) return program
  console.log(`the plain loop cannot be compiled: ${made.stderr || made.error?.message}`)
}
const plain = plainLoop()

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1]
const bytesOf = (passes) => passes.reduce((n, p) => n + 4 * p.split(':').reduce((r, x, i) => r + (i + 1) * x, 0), 0)
/** Ratios of rounds: the median, and what they lie between. */
function ratio(a, b) {
  const all = a.map((s, i) => s / b[i])
  return { median: median(all), least: Math.min(...all), most: Math.max(...all) }
}
const show = (r) => `${r.median.toFixed(2)} (${r.least.toFixed(2)} to ${r.most.toFixed(2)})`

const rows = []
async function time(c, title, shapes) {
  const count = shapes.reduce((n, s) => n + s.reduce((a, b) => a * b, 1), 0)
  const own = (how) => ({
    name: how === 'written' ? 'written in tensors' : 'steepest',
    command: process.execPath,
    args: [
      join(root, 'bench/own/optim.mjs'),
      JSON.stringify(shapes),
      String(threads),
      c.name,
      JSON.stringify(c.options),
      how,
    ],
  })
  const peers = c.peers
    .filter((p) => !without.some((w) => p.name.includes(w)))
    .map(({ name, what }) => ({
      name,
      command: peerPython(),
      args: [join(root, 'bench/peers/optim.py'), JSON.stringify(shapes), String(threads), JSON.stringify(what)],
    }))
  const loop =
    plain && c.passes
      ? [{ name: 'plain loop', command: plain, args: [String(threads), String(count), ...c.passes] }]
      : []
  const bytes = c.passes && bytesOf(c.passes) * count
  const results = await compare(
    `${c.label}, ${title}, ${threads} threads`,
    [own('built-in'), ...loop, ...(c.written && !without.includes('written') ? [own('written')] : []), ...peers],
    {
      rounds: Number(args.rounds),
      repetitions: c.matrices ? 1 : 2,
      warm: c.matrices ? 1 : 2,
      rate: (s) => `${(1000 * s).toFixed(1)} ms${bytes ? `, ${(bytes / s / 1e9).toFixed(1)} GB/s` : ''}`,
    },
  )
  const [first, ...others] = results
  if (first?.name !== 'steepest') return
  const loops = others.find((r) => r.name === 'plain loop')
  const written = others.find((r) => r.name === 'written in tensors')
  const theirs = others.filter((r) => r.name !== 'plain loop' && r.name !== 'written in tensors')
  const fastest = theirs.reduce((a, b) => (a && median(a.seconds) <= median(b.seconds) ? a : b), undefined)
  const s = median(first.seconds)
  rows.push([
    c.label,
    title,
    `${(1000 * s).toFixed(1)}`,
    bytes ? (bytes / s / 1e9).toFixed(1) : '',
    loops ? show(ratio(loops.seconds, first.seconds)) : '',
    written ? show(ratio(written.seconds, first.seconds)) : '',
    ...(fastest
      ? [fastest.name, (1000 * median(fastest.seconds)).toFixed(1), show(ratio(fastest.seconds, first.seconds))]
      : ['none', '', '']),
  ])
}

const needs = optim.OPTIMIZERS.filter((name) => optim.optimizerNamed(name).step)
console.log(`${needs.join(', ')}: they look at the objective too, so their step alone is not timed`)
for (const c of casesOf(optim.OPTIMIZERS.filter((name) => !needs.includes(name)))) {
  if (only && !only.includes(c.label) && !only.includes(c.name)) continue
  for (const work of args.work.split(',')) {
    if (work === 'gpt2' && c.layer) await time(c, 'the 12 tensors of a layer of GPT-2', layerShapes(width))
    else if (work === 'gpt2') await time(c, "GPT-2's 148 tensors", gpt2Shapes(width))
    else if (work === 'hundred') await time(c, `${wide.toLocaleString('en')} parameters in a hundred tensors`, hundred)
    else if (!c.matrices) await time(c, `${wide.toLocaleString('en')} parameters in one tensor`, [[wide]])
  }
}

const head = [
  'Optimizer',
  'Work',
  'ms',
  'GB/s',
  'plain loop over it (spread)',
  'written in tensors over it (spread)',
  'fastest peer',
  'ms',
  'it over steepest (spread)',
]
const table = [head, head.map(() => '---'), ...rows].map((r) => `| ${r.join(' | ')} |`).join('\n')
console.log(`\n${table}`)
if (args.record) writeFileSync(args.record, `${table}\n`)
