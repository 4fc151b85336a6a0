// Times programs against each other in one run: all are started, each does its rounds in turn, and the ratios of the rounds are told with their spread.
// A contestant is a process that prints a line beginning with `ready`, then answers each line `n` with the seconds that n repetitions took.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const root = join(fileURLToPath(new URL('.', import.meta.url)), '..')

/** Python of the environment that peers live in: `.peers` of the project, or what STEEPEST_PEERS names. */
export function peerPython() {
  const python = join(process.env.STEEPEST_PEERS ?? join(root, '.peers'), 'bin/python')
  return existsSync(python) ? python : undefined
}

/** Starts a contestant; gives a function that times n repetitions, or the reason why it cannot. */
async function start({ command, args, env }) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } })
  let errors = ''
  child.stderr.on('data', (chunk) => (errors += chunk))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const read = async () => {
    const { value, done } = await lines.next()
    if (done) throw new Error(errors.trim().split('\n').at(-1) || 'it ended without a word')
    return value
  }
  let ready = await read()
  while (!ready.startsWith('ready')) ready = await read()
  return {
    ready: ready.slice(6),
    time: async (n) => {
      child.stdin.write(`${n}\n`)
      return Number(await read()) / n
    },
    end: () => child.stdin.end(),
  }
}

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1]

/**
 * @param contestants `{ name, command, args, env }`; the first is the one that the others are compared with
 * @param options `rounds`, `repetitions` of a round, `warm` repetitions before; `rate` turns seconds into what is printed
 */
export async function compare(
  title,
  contestants,
  { rounds = 5, repetitions = 1, warm = 1, rate = (s) => `${(1000 * s).toFixed(1)} ms` } = {},
) {
  console.log(`\n${title}`)
  const running = []
  for (const contestant of contestants) {
    try {
      if (!contestant.command) throw new Error('its environment is not there: npm run bench sets it up')
      const process = await start(contestant)
      await process.time(warm)
      running.push({ ...contestant, ...process, seconds: [] })
    } catch (error) {
      console.log(`  ${contestant.name.padEnd(28)} missing: ${error.message}`)
    }
  }
  for (let round = 0; round < rounds; round++) {
    for (const r of running) r.seconds.push(await r.time(repetitions))
  }
  const [first] = running
  for (const r of running) {
    r.end()
    const ratios = r.seconds.map((s, i) => s / first.seconds[i])
    const spread = `${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`
    const versus = r === first ? '' : `${median(ratios).toFixed(2)} times the time of ${first.name} (${spread})`
    console.log(`  ${r.name.padEnd(28)} ${rate(median(r.seconds)).padStart(14)}  ${versus}`)
  }
  return running.map(({ name, ready, seconds }) => ({ name, version: ready, seconds }))
}
