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

/** The folder that libraries of JavaScript are compared from. */
export const peerNode = () => join(process.env.STEEPEST_PEERS ?? join(root, '.peers'), 'node')

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
      const answer = JSON.parse(await read())
      const { seconds } = typeof answer === 'number' ? { seconds: answer } : answer
      return { ...answer, seconds: seconds / n }
    },
    end: () => child.stdin.end(),
  }
}

export const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1]

/**
 * Starts all contestants and lets each do its rounds in turn.
 *
 * @param contestants `{ name, command, args, env }`
 * @returns for each `{ name, ready, answers }` with the answer of every round, or `{ name, missing }` with the reason
 */
export async function contest(contestants, { rounds = 5, repetitions = 1, warm = 1 } = {}) {
  const all = []
  for (const contestant of contestants) {
    try {
      if (!contestant.command) throw new Error('its environment is not there: npm run bench sets it up')
      const process = await start(contestant)
      const warmed = await process.time(warm)
      all.push({ name: contestant.name, process, ready: process.ready, warmed, answers: [] })
    } catch (error) {
      all.push({ name: contestant.name, missing: error.message })
    }
  }
  const running = all.filter((c) => c.process)
  for (let round = 0; round < rounds; round++) {
    for (const c of running) c.answers.push(await c.process.time(repetitions))
  }
  for (const c of running) c.process.end()
  return all.map(({ process, ...told }) => told)
}

/** The median of how many times longer `other` took than `one` in the same round, and the least and the most. */
export function ratioOf(other, one) {
  const ratios = other.answers.map(({ seconds }, i) => seconds / one.answers[i].seconds)
  return { median: median(ratios), low: Math.min(...ratios), high: Math.max(...ratios) }
}

/** Prints a contest; `rate` turns seconds into what is printed. All are compared with the first. */
export async function compare(title, contestants, { rate = (s) => `${(1000 * s).toFixed(1)} ms`, ...options } = {}) {
  console.log(`\n${title}`)
  const all = await contest(contestants, options)
  const running = all.filter((c) => !c.missing)
  for (const c of all) {
    if (c.missing) {
      console.log(`  ${c.name.padEnd(28)} missing: ${c.missing}`)
      continue
    }
    const { median: times, low, high } = ratioOf(c, running[0])
    const versus =
      c === running[0]
        ? ''
        : `${times.toFixed(2)} times the time of ${running[0].name} (${low.toFixed(2)} to ${high.toFixed(2)})`
    console.log(`  ${c.name.padEnd(28)} ${rate(median(c.answers.map((a) => a.seconds))).padStart(14)}  ${versus}`)
  }
  return running.map(({ name, ready, answers }) => ({ name, version: ready, seconds: answers.map((a) => a.seconds) }))
}
