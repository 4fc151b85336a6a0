import { Worker } from 'node:worker_threads'
import { checkOptions, SteepestError } from '../errors.js'
import type { StepData, StepSource } from '../train/data.js'

/**
 * Asks a source for the next `ahead` steps before they are needed, so that what it waits for (files, a worker) runs beside the
 * training step. The position is that of the last step which was taken, however far the source is ahead.
 */
export function prefetch(source: StepSource, ahead = 2): StepSource {
  interface Ready {
    readonly data: StepData | null
    readonly state: unknown
  }
  let ready: Promise<Ready>[] = []
  let last: Promise<unknown> = Promise.resolve()
  let position = source.state?.()
  let over = false
  const ask = () => {
    const asked = last.then(async (): Promise<Ready> => {
      if (over) return { data: null, state: source.state?.() }
      try {
        const data = await source.next()
        over = data === null
        return { data, state: source.state?.() }
      } catch (error) {
        over = true
        throw error
      }
    })
    last = asked.catch(() => undefined)
    ready.push(asked)
  }
  const prefetched: StepSource = {
    unit: source.unit,
    async next() {
      while (ready.length <= ahead) ask()
      const { data, state } = await ready.shift()!
      position = state
      return data
    },
    async close() {
      over = true
      await last
      await source.close?.()
    },
  }
  if (source.state) prefetched.state = () => position
  if (source.restore) {
    prefetched.restore = async (state) => {
      over = true
      await last
      ready = []
      over = false
      await source.restore!(state)
      position = state
    }
  }
  return prefetched
}

/** The far side of {@link fromWorker}; written as text so that it needs no file of its own wherever the package is bundled. */
const BOOTSTRAP = `
const { parentPort, workerData } = require('node:worker_threads')
let credit = workerData.ahead
let wake = () => {}
parentPort.on('message', (more) => { credit += more; wake() })
async function main() {
  const { default: batches } = await import(workerData.url)
  if (typeof batches !== 'function') throw new Error('the module has no function as its default export')
  for await (const batch of batches(workerData.data)) {
    while (credit <= 0) await new Promise((resolve) => { wake = resolve })
    credit--
    parentPort.postMessage({ batch })
  }
  parentPort.postMessage({ done: true })
  parentPort.close()
}
main().catch((error) => {
  parentPort.postMessage({ error: error instanceof Error ? error.message : String(error) })
  parentPort.close()
})
`

/**
 * Batches that a generator makes on a thread of its own, so that decoding or augmenting them holds up nothing. `url` is a
 * module whose default export takes `data` and gives batches (records of typed arrays, or of `{ data, shape }`), as an
 * iterable or async iterable. It runs at most `ahead` batches (4 where not given) before those that were taken.
 *
 * @throws SteepestError DATA where the module fails, with its message
 */
export async function* fromWorker(
  url: string | URL,
  options: { readonly data?: unknown; readonly ahead?: number } = {},
): AsyncGenerator<unknown, void> {
  checkOptions('fromWorker', options, ['data', 'ahead'])
  const { data, ahead = 4 } = options
  if (!Number.isSafeInteger(ahead) || ahead < 1) {
    throw new SteepestError('OPTION', {
      who: 'fromWorker',
      rule: '`ahead` must be a whole number of 1 or more',
      got: String(ahead),
    })
  }
  type Message = { batch: unknown } | { done: true } | { error: string }
  const arrived: Message[] = []
  let wake = (): void => {}
  const deliver = (message: Message) => {
    arrived.push(message)
    wake()
  }
  const worker = new Worker(BOOTSTRAP, { eval: true, workerData: { url: String(url), data, ahead } })
  worker.on('message', deliver)
  worker.on('error', (error) => deliver({ error: error.message }))
  worker.on('exit', (code) => deliver(code === 0 ? { done: true } : { error: `its thread ended with code ${code}` }))
  try {
    for (;;) {
      while (arrived.length === 0) await new Promise<void>((resolve) => (wake = resolve))
      const message = arrived.shift()!
      if ('done' in message) return
      if ('error' in message) {
        throw new SteepestError('DATA', {
          who: String(url),
          rule: 'the generator on a worker thread must not fail',
          got: message.error,
        })
      }
      worker.postMessage(1)
      yield message.batch
    }
  } finally {
    await worker.terminate()
  }
}
