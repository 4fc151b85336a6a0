// Counts the ticks of a 10 ms timer, idle and during long steps on all cores, and the worst lateness of one.
import { setUp } from './gpt.mjs'

const run = setUp({ vocabSize: 256, context: 128, layers: 4, heads: 4, width: 256, batch: 8 })
await run.trainer.materialize()
await (await run.step())()
const during = async (work) => {
  let ticks = 0
  let worst = 0
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    worst = Math.max(worst, now - last - 10)
    last = now
    ticks++
  }, 10)
  const began = performance.now()
  await work()
  clearInterval(timer)
  return { rate: ticks / (performance.now() - began), worst }
}
const idle = await during(() => new Promise((resolve) => setTimeout(resolve, 1000)))
const busy = await during(async () => {
  const until = performance.now() + 2000
  while (performance.now() < until) await (await run.step())()
})
console.log(JSON.stringify({ share: busy.rate / idle.rate, worst: busy.worst }))
run.trainer.close()
