// The loss of a GPT of ten million numbers under every way to save memory, on the same tokens (each seen once, so that the loss in training is that of
// unseen text): `npm run bench -- memory --curves [steps] [file to write]`. Some eight minutes for 300 steps on two cores.
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { root } from './harness.mjs'

const steps = Number(process.argv[3] ?? 300)
const file = process.argv[4]
const sizes = { layers: 6, width: 368, heads: 8, vocab: 1024, batch: 8, context: 64, rank: 92 }
const run = async (spec) => {
  const args = [join(root, 'bench/own/curves.mjs'), JSON.stringify(spec)]
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 1 << 24 })
  return JSON.parse(stdout.trim().split('\n').at(-1))
}
/** Steps that a loss is the mean of. */
const window = Math.min(20, steps)
const marks = [
  ...new Set(
    [1, 1 / 6, 1 / 3, 2 / 3, 1].map((part, i) => (i === 0 ? window : Math.max(window, Math.round(part * steps)))),
  ),
]
const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length
const lines = []
const say = (line) => {
  lines.push(line)
  console.log(line)
}

const { layers, width, batch, context } = sizes
let first
for (const way of await run({})) {
  const { losses, seconds, numbers, peak } = await run({ way, steps, threads: availableParallelism(), ...sizes })
  if (!first) {
    first = { losses, seconds }
    say(
      `GPT, ${layers} layers, width ${width}, ${(numbers / 1e6).toFixed(1)} M numbers, ${batch} × ${context} tokens, float32, clip 1, ${steps} steps; losses are means of the ${window} steps before`,
    )
    say('')
    say(`| way | ${marks.map((m) => `step ${m}`).join(' | ')} | last beside exact | peak | ms a step | beside exact |`)
    say(`|---|${marks.map(() => '---|').join('')}---|---|---|---|`)
  }
  const at = (list, m) => mean(list.slice(m - window, m))
  const gap = at(losses, steps) - at(first.losses, steps)
  const cells = [
    ...marks.map((m) => at(losses, m).toFixed(3)),
    `${gap < 0 ? '−' : '+'}${Math.abs(gap).toFixed(3)}`,
    `${(peak / 1e6).toFixed(0)} MB`,
    (1000 * seconds).toFixed(0),
    `${(seconds / first.seconds).toFixed(2)}×`,
  ]
  say(`| ${way} | ${cells.join(' | ')} |`)
}
if (file) writeFileSync(file, `${lines.join('\n')}\n`)
