// A loop of eager ops that never reads: prints how the heap and the process grew from its first tenth to its end, in MB, and what it computed.
// Arguments: the number of rounds of ten ops; `sync` for a loop within one task, else a turn of the event loop every thousand rounds.
import { setImmediate } from 'node:timers/promises'
import { add, grad, mul, sin, sub, sum, tensor } from '../../../dist/index.js'

const [rounds, how] = [Number(process.argv[2]), process.argv[3]]
let w = tensor(new Float64Array(1000).fill(1))
let m = tensor(new Float64Array(1000))
const unused = sin(w)
const loss = (t) => sum(sin(t))
const size = () => {
  global.gc()
  const { heapUsed, rss } = process.memoryUsage()
  return [heapUsed / 2 ** 20, rss / 2 ** 20]
}
let early
for (let i = 0; i < rounds; i++) {
  if (i === Math.round(rounds / 10)) early = size()
  m = add(mul(m, 0.9), grad(loss)(w))
  w = sub(w, mul(m, 0.001))
  if (how !== 'sync' && i % 1000 === 999) await setImmediate()
}
const late = size()
const [first] = await w.read()
const [idle] = await unused.read()
console.log(JSON.stringify({ heap: late[0] - early[0], resident: late[1] - early[1], first, idle }))
