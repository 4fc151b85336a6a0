import { saveCheckpoint } from '../../lib/io/checkpoint.js'
import { type Fault, faulty } from './faults.js'
import { partsOf } from './parts.js'

const [dir, step, at, fault] = process.argv.slice(2)
const { fs, calls } = faulty(Number(at), fault as Fault)
await saveCheckpoint(dir, Number(step), partsOf(Number(step) + 100), { keep: 1, keepBest: false, fs })
process.stdout.write(JSON.stringify(calls))
