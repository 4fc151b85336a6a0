// Trains in a worker that is the addon's only loader; ends it by itself, or in mid-step; then the process goes on and ends well.
import { setTimeout } from 'node:timers/promises'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

if (isMainThread) {
  const started = () => {
    const worker = new Worker(new URL(import.meta.url), { workerData: process.argv[2] })
    const ended = new Promise((resolve) => worker.once('exit', resolve))
    return new Promise((resolve, reject) => {
      worker.once('message', (loss) => resolve({ worker, loss, ended }))
      worker.once('error', reject)
    })
  }
  const losses = []
  for (let i = 0; i < 3; i++) {
    const { worker, loss, ended } = await started()
    losses.push(loss)
    if (process.argv[2] === 'terminate') {
      await setTimeout(20)
      await worker.terminate()
    } else await ended
  }
  await setTimeout(50)
  console.log(JSON.stringify({ losses }))
} else {
  const { setUp } = await import('./gpt.mjs')
  const run = setUp({ vocabSize: 256, context: 64, layers: 2, heads: 2, width: 128, batch: 8 })
  await run.trainer.materialize()
  parentPort.postMessage((await (await run.step())()).loss)
  if (workerData === 'terminate') for (;;) await (await run.step())()
  run.trainer.close()
}
