import { join } from 'node:path'
import { latestCheckpoint, saveCheckpoint } from '../../lib/io/checkpoint.js'
import { RunLog } from '../../lib/io/runlog.js'
import { partsOf } from './parts.js'

// A run that does nothing but save: it goes on from the last whole checkpoint, and is killed from outside.
const [dir] = process.argv.slice(2)
const { step = 0 } = await latestCheckpoint(dir)
const log = await RunLog.open(join(dir, 'run.jsonl'), { keepThroughStep: step })
process.stdout.write('ready')
for (let at = step + 1; ; at++) {
  void log.append({ type: 'step', step: at, loss: 1 / at })
  await saveCheckpoint(dir, at, partsOf(at), { keep: 2 })
  await log.append({ type: 'save', step: at })
}
