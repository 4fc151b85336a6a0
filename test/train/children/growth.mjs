// Prints resident memory after a tenth and at the end of many small steps.
import { resident, setUp } from './gpt.mjs'

const steps = Number(process.argv[2])
const run = setUp({ vocabSize: 16, context: 4, layers: 1, heads: 1, width: 8, batch: 1 })
await run.trainer.materialize()
let early = 0
for (let i = 1; i <= steps; i++) {
  const wait = await run.step()
  if (i % 10 === 0) await wait()
  if (i === steps / 10) early = resident('VmRSS')
}
console.log(JSON.stringify({ early, late: resident('VmRSS') }))
run.trainer.close()
