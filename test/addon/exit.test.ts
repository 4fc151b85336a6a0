import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { packageRoot } from '../../lib/addon.js'
import { freshFolder } from '../io/child.js'

// A tenth of such ends crashed while libraries gave their memory back under a thread that was within them.
const TIMES = process.env.STEEPEST_LONG ? 30 : 3

test(`process.exit in the middle of a long instruction ends the process as asked, ${TIMES} times`, () => {
  const program = join(freshFolder('exit'), 'program.mjs')
  writeFileSync(
    program,
    `import { qr, tensor } from '${pathToFileURL(join(packageRoot, 'dist/index.js'))}'
const n = 1500
const x = tensor(Float32Array.from({ length: n * n }, (_, i) => Math.sin(i * 1.7)), { shape: [n, n] })
qr(x).q.read()
setTimeout(() => process.exit(7), Number(process.argv[2]))
`,
  )
  for (let i = 0; i < TIMES; i++) {
    const { status, signal, stderr } = spawnSync(process.execPath, [program, String(20 + 9 * i)], { encoding: 'utf8' })
    expect({ status, signal, stderr }).toEqual({ status: 7, signal: null, stderr: '' })
  }
})
