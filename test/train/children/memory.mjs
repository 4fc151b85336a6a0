// Prints the planned peak and the measured one, above what the process held before the model.
import { matmul, ones } from '../../../dist/index.js'
import { resident, setUp } from './gpt.mjs'

// Threads, libraries and the compiler's own first work are there before the model.
await matmul(ones([64, 64]), ones([64, 64])).read()
const [config, steps] = [JSON.parse(process.argv[2]), Number(process.argv[3])]
const before = resident('VmRSS')
const run = setUp(config)
const { total } = run.plan()
await run.trainer.materialize()
for (let i = 0; i < steps; i++) await (await run.step())()
console.log(JSON.stringify({ planned: total, measured: resident('VmHWM') - before }))
run.trainer.close()
