// Hands changed programs to the addon and runs those that it takes. Writes the number of each case before it begins, so that the parent
// knows which one ended the process. Arguments: addon, folder with the recorded programs, first case, cases, seed.
import { readFileSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const [addonPath, folder, first, cases, seed] = process.argv.slice(2)
const addon = createRequire(import.meta.url)(addonPath)
const list = JSON.parse(readFileSync(join(folder, 'programs.json'), 'utf8'))
const aligned = (name) => new Uint8Array(readFileSync(join(folder, name)))
const programs = list.map(({ threads }, i) => ({
  threads,
  words: new Float64Array(aligned(`${i}.words`).buffer),
  constants: aligned(`${i}.constants`),
}))
addon.threads(list[0].threads)

/** Memory that a changed program may ask for. */
const LIMIT = 1 << 28
/** Milliseconds after which a run is cancelled; a changed loop may be endless. */
const PATIENCE = 2000
/** Milliseconds in which a cancelled run must have ended. */
const GRACE = 20_000
/** Bytes behind every buffer that no program may touch. */
const WALL = 256
const ODD = [
  0,
  -0,
  1,
  -1,
  2,
  7,
  0.5,
  -0.5,
  255,
  65536,
  2 ** 31 - 1,
  2 ** 31,
  -(2 ** 31),
  2 ** 32,
  2 ** 50,
  2 ** 53,
  -(2 ** 53),
  1e308,
  Number.NaN,
  Infinity,
  -Infinity,
]

let state = 0
/** A number in [0, n), the same for one seed and case. */
function draw(n) {
  state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5) >>> 0
  const mixed = Math.imul(state ^ (state >>> 13), 0x297a2d39) >>> 0
  return Math.floor((((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32) * n)
}

/** Words with one to three changes, most of them small, since those pass the first checks. */
function changed(words) {
  let out = [...words]
  for (let n = 1 + draw(3); n > 0; n--) {
    const at = 2 + draw(out.length - 2)
    const kind = draw(16)
    if (kind < 6) out[at] += [1, -1, 2, -2, 8, -8, 64][draw(7)]
    else if (kind < 9) out[at] = ODD[draw(ODD.length)]
    else if (kind < 12) out[at] = out[2 + draw(out.length - 2)]
    else if (kind === 12) {
      const other = 2 + draw(out.length - 2)
      ;[out[at], out[other]] = [out[other], out[at]]
    } else if (kind === 13) out.splice(at, 1 + draw(3))
    else if (kind === 14) out.splice(at, 0, draw(4))
    else if (draw(4) === 0) out = out.slice(0, at)
    else out[at] = Math.floor(out[at] / 2)
  }
  return Float64Array.from(out)
}

/** Numbers that make sense as floats of any width, and as indices that are mostly in range. */
function fill(bytes) {
  const view = new DataView(new ArrayBuffer(bytes + WALL))
  const style = draw(4)
  for (let i = 0; i + 4 <= bytes; i += 4) {
    if (style === 0) view.setFloat32(i, draw(2000) / 1000 - 1, true)
    else if (style === 1) view.setInt32(i, draw(12) - 2, true)
    else if (style === 2) view.setUint32(i, draw(2 ** 32), true)
    else view.setUint32(i, i % 8 === 4 ? 0x3fe00000 + draw(1 << 20) : draw(2 ** 32), true)
  }
  for (let i = bytes; i < bytes + WALL; i++) view.setUint8(i, 0xa5)
  return new Uint8Array(view.buffer)
}

let wake = () => {}
const stream = new addon.Stream(() => wake())
stream.ref()

async function run(program, sizes) {
  const buffers = sizes.map((bytes) => {
    const buffer = new addon.Buffer(bytes + WALL)
    buffer.write(fill(bytes))
    return buffer
  })
  const done = new Promise((resolve) => {
    wake = resolve
  })
  stream.submit(program, buffers, new addon.Arena(), { trace: draw(4) === 0 })
  const late = (ms) => Promise.race([done, setTimeout(ms, 'late', { ref: false })])
  let outcome = 'run'
  if ((await late(PATIENCE)) === 'late') {
    stream.cancel()
    if ((await late(GRACE)) === 'late') return 'stuck'
    outcome = 'cancelled'
  }
  stream.take()
  buffers.forEach((buffer, i) => {
    const wall = new Uint8Array(WALL)
    buffer.read(wall, sizes[i])
    if (wall.some((byte) => byte !== 0xa5)) throw new Error(`a program wrote behind external ${i}`)
  })
  return outcome
}

const counts = { refused: 0, run: 0, cancelled: 0, stuck: 0, large: 0 }
for (let index = Number(first); index < Number(cases); index++) {
  writeSync(1, `${index}\n`)
  state = (Math.imul(index + 1, 2654435761) ^ Number(seed)) >>> 0
  const chosen = programs[draw(programs.length)]
  // One in sixteen is as it was: it must be taken.
  const intact = draw(16) === 0
  const words = intact ? chosen.words : changed(chosen.words)
  const constants =
    intact || draw(8) > 0
      ? chosen.constants
      : chosen.constants.map(() => draw(256)).slice(0, draw(chosen.constants.length + 1))
  let program
  try {
    program = new addon.Program(words, constants, chosen.threads)
  } catch (error) {
    if (intact) throw error
    if (!['PROGRAM', 'OUT_OF_MEMORY', 'NATIVE'].includes(error.code)) throw error
    counts.refused++
    continue
  }
  const sizes = Array.from({ length: words[2] }, (_, i) => words[3 + 2 * i])
  if (sizes.reduce((a, b) => a + b, program.arenaBytes) > LIMIT) {
    counts.large++
    continue
  }
  const outcome = await run(program, sizes)
  counts[outcome]++
  if (outcome === 'stuck') {
    writeSync(1, `stuck ${index}\n`)
    process.exit(3)
  }
}
writeSync(1, `${JSON.stringify(counts)}\n`)
stream.close()
process.exit(0)
