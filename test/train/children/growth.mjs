// Prints what the process holds after a tenth and at the end of many small steps: resident memory without the space that V8 keeps for new
// objects (it widens that to tens of megabytes as it likes, empty as it is after a collection), live objects, and native memory.
import { getHeapSpaceStatistics } from 'node:v8'
import { native } from '../../../dist/addon.js'
import { resident, setUp } from './gpt.mjs'

const steps = Number(process.argv[2])
const run = setUp({ vocabSize: 16, context: 4, layers: 1, heads: 1, width: 8, batch: 1 })
await run.trainer.materialize()

function held() {
  globalThis.gc()
  const young = getHeapSpaceStatistics().find((space) => space.space_name === 'new_space').physical_space_size
  return {
    resident: resident('VmRSS') - young,
    objects: process.memoryUsage().heapUsed,
    native: native().info().allocatedBytes,
  }
}

let early
for (let i = 1; i <= steps; i++) {
  const wait = await run.step()
  if (i % 10 === 0) await wait()
  if (i === steps / 10) early = held()
}
console.log(JSON.stringify({ early, late: held() }))
run.trainer.close()
