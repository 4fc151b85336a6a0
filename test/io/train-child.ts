import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freshFolder } from './child.js'

/** Steps of a tiny run. */
export const STEPS = 60

const main = join(dirname(fileURLToPath(import.meta.url)), '../../dist/cli/main.js')
if (!existsSync(main)) throw new Error('the package is not built: npm run build')

/** How a run ended. */
export interface Ended {
  readonly code: number | null
  readonly signal: string | null
  readonly out: string
  readonly err: string
  /** Milliseconds from the first event to the end. */
  readonly trained: number
}

/** Runs `steepest train`; `killAfter` milliseconds after its first event it is killed, and `limit` is the most kB a file may have. */
export function steepest(
  args: readonly string[],
  cwd: string,
  { killAfter, limit }: { killAfter?: number; limit?: number } = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const command = [process.execPath, main, 'train', ...args, '--json']
    const limited = limit === undefined ? command : ['bash', '-c', `ulimit -f ${limit}; exec "$@"`, 'bash', ...command]
    const child = spawn(limited[0], limited.slice(1), { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    let err = ''
    let began = 0
    child.stdout.on('data', (data) => {
      out += data
      if (began) return
      began = performance.now()
      if (killAfter !== undefined) setTimeout(() => child.kill('SIGKILL'), killAfter)
    })
    child.stderr.on('data', (data) => (err += data))
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, out, err, trained: performance.now() - began }))
  })
}

const sizes =
  '--layers 1 --heads 2 --width 16 --context 16 --batch 2 --tokenizer bytes --seed 7 --eval-every 20 --sample-every 40 --save-every 3 --keep 2'
/** A tiny run into a folder. */
export const begin = (out: string) => ['book.txt', ...sizes.split(' '), '--steps', String(STEPS), '--out', out]

/** A folder with a small text in it. */
export async function workplace(): Promise<string> {
  const cwd = freshFolder('killtrain')
  await writeFile(
    join(cwd, 'book.txt'),
    Array.from({ length: 400 }, (_, i) => `Line ${i}: the square of ${i} is ${i * i}.\n`).join(''),
  )
  return cwd
}
