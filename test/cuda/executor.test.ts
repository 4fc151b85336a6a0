import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import { device } from '../../lib/device.js'
import { SteepestError } from '../../lib/errors.js'
import { eagerQueue } from '../../lib/graph/evaluate.js'
import { build } from '../../lib/graph/executable.js'
import { assign } from '../../lib/ops/control.js'
import { placeholder, transpose } from '../../lib/ops/shape.js'
import { add, cond, less, max, take, type Tensor, tensor, whileLoop } from '../../lib/index.js'
import { revise } from '../../lib/transform/revise.js'
import { inspectDevice } from '../../lib/train/device-check.js'
import { fibersLibrary, tell } from './library.js'

const library = await fibersLibrary()
const folder = mkdtempSync(join(tmpdir(), 'steepest-cuda-'))
const log = join(folder, 'calls')
const NOTHING = { DRIVER: undefined, DEVICES: undefined, MEMORY: undefined, FAIL: undefined, LOG: undefined }

/** Calls of CUDA's runtime that `f` makes, by name. */
async function callsOf(f: () => Promise<void>): Promise<Map<string, number>> {
  rmSync(log, { force: true })
  tell({ LOG: log })
  try {
    await f()
  } finally {
    tell({ LOG: undefined })
  }
  const counts = new Map<string, number>()
  for (const line of readFileSync(log, 'utf8').split('\n')) counts.set(line, (counts.get(line) ?? 0) + 1)
  return counts
}

const sentence = (f: () => unknown): string => {
  try {
    f()
  } catch (error) {
    expect(error).toBeInstanceOf(SteepestError)
    expect((error as SteepestError).code).toBe('DEVICE')
    return (error as SteepestError).rule
  }
  return ''
}

/** A program that turns a matrix, and memory to run it on. */
function turning() {
  const x = placeholder({ shape: [3, 5], dtype: 'float32' })
  const state = placeholder({ shape: [5, 3], dtype: 'float32' })
  const executable = build({ inputs: [x, state], outputs: [assign(state, transpose(x))] }, new Set([1]))
  const { Buffer } = native()
  const bindings = executable.plan.externals.map((e) => new Buffer(e.bytes))
  const out = executable.plan.outputs[0]
  const given = Float32Array.from({ length: 15 }, (_, i) => i * i - 7)
  const wanted = Float32Array.from({ length: 15 }, (_, i) => given[(i % 3) * 5 + Math.floor(i / 3)])
  const where = eagerQueue()
  const run = async (times: number) => {
    for (let i = 0; i < times; i++) {
      bindings[0].write(given)
      await where.queue.wait(where.queue.submit(executable, bindings, where.arena))
      const got = new Float32Array(15)
      bindings[out].read(got)
      expect(got).toEqual(wanted)
    }
  }
  return { executable, bindings, run }
}

describe.runIf(library)('the executor of the GPU, on a fake runtime', () => {
  process.env.STEEPEST_CUDA_LIBRARY = library
  afterEach(() => {
    tell(NOTHING)
    device('cpu')
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  test('no driver, one that is too old, and no GPU are three sentences; auto takes the CPU', () => {
    tell({ DRIVER: 'none' })
    expect(sentence(() => device('cuda'))).toMatch(/^no NVIDIA driver \(libcuda\.so\.1\) is installed/)
    expect(device('auto')).toBe('cpu')
    tell({ DRIVER: 'old' })
    expect(sentence(() => device('cuda'))).toMatch(/driver of this machine is for CUDA 12\.2, .* CUDA 13\.0/)
    tell({ DRIVER: undefined, DEVICES: '0' })
    expect(sentence(() => device('cuda'))).toMatch(/finds no GPU/)
    tell(NOTHING)
    expect(device('auto')).toBe('cuda')
  })

  test('launches what is new, captures what comes again, and replays it from then on', async () => {
    device('cuda')
    const { run } = turning()
    const first = await callsOf(() => run(1))
    expect(first.get('launch')).toBeGreaterThan(0)
    expect(first.has('cudaStreamBeginCapture')).toBe(false)
    const second = await callsOf(() => run(1))
    expect(second.get('cudaStreamBeginCapture')).toBe(1)
    expect(second.get('cudaGraphLaunch')).toBe(1)
    const later = await callsOf(() => run(5))
    expect(later.has('launch')).toBe(false)
    expect(later.get('cudaGraphLaunch')).toBe(5)
    expect(later.has('cudaMalloc')).toBe(false)
  })

  test('keeps a graph for each set of buffers of a ring, and gives up the oldest', async () => {
    device('cuda')
    const { executable, bindings } = turning()
    const { Buffer } = native()
    const where = eagerQueue()
    const sets = Array.from({ length: 10 }, () => bindings.map((b) => new Buffer(b.bytes)))
    const round = (few: typeof sets) => async () => {
      for (const set of few) await where.queue.wait(where.queue.submit(executable, set, where.arena))
    }
    await round(sets.slice(0, 3))()
    await round(sets.slice(0, 3))()
    expect((await callsOf(round(sets.slice(0, 3)))).has('launch')).toBe(false)
    await round(sets)()
    const again = await callsOf(round(sets.slice(0, 1)))
    expect(again.has('cudaGraphLaunch')).toBe(false)
  })

  test('a call that fails, whichever it is, is an error with its name or changes nothing; the next run is whole', async () => {
    device('cuda')
    let failed = 0
    for (let n = 1; n < 400; n++) {
      tell({ FAIL: `*:${n}:999` })
      let error: unknown
      try {
        await turning().run(3)
      } catch (e) {
        error = e
      }
      if (error !== undefined) {
        failed++
        expect(error, `call ${n}: ${error}`).toBeInstanceOf(SteepestError)
        expect((error as SteepestError).code, `call ${n}: ${error}`).toBe('DEVICE')
        expect((error as SteepestError).rule).toMatch(/cuda\w+|[kK]ernel/)
      }
      tell({ FAIL: undefined })
      await turning().run(2)
      // Beyond what a run calls nothing fails any more.
      if (error === undefined && n > 60) break
    }
    expect(failed).toBeGreaterThan(25)
  })

  test.each([
    ['a chain that writes over it', (s: Tensor, x: Tensor) => assign(s, add(s, x))],
    ['a revision', (s: Tensor, x: Tensor, flag: Tensor) => revise(flag, [s], (own) => [add(own, x)])[0]],
    [
      'a branch',
      (s: Tensor, x: Tensor, flag: Tensor) =>
        assign(
          s,
          cond(
            flag,
            (own: Tensor) => add(own, x),
            (own: Tensor) => own,
            s,
          ),
        ),
    ],
    [
      'a loop',
      (s: Tensor, x: Tensor) =>
        assign(
          s,
          whileLoop(
            (own: Tensor) => less(max(own), 6),
            (own: Tensor) => add(own, x),
            s,
          ),
        ),
    ],
  ] as const)('after a fault %s leaves the state as it was, and the error is of who raised it', async (_, next) => {
    device('cuda')
    const [x, index, flag, state] = [
      placeholder({ shape: [3], dtype: 'float32' }),
      placeholder({ shape: [1], dtype: 'int32' }),
      placeholder({ shape: [], dtype: 'float32' }),
      placeholder({ shape: [5], dtype: 'float32' }),
    ]
    const after = next(state, take(x, index), flag)
    const executable = build({ inputs: [x, index, flag, state], outputs: [after] }, new Set([3]))
    const bindings = executable.plan.externals.map((e) => new (native().Buffer)(e.bytes))
    const where = eagerQueue()
    const out = bindings[executable.plan.outputs[0]]
    const run = async (at: number) => {
      const given = [Float32Array.of(1, 2, 4), Int32Array.of(at), Float32Array.of(1), Float32Array.of(1, 2, 3, 4, 5)]
      given.forEach((numbers, i) => bindings[i].write(numbers))
      await where.queue.wait(where.queue.submit(executable, bindings, where.arena))
    }
    const got = new Float32Array(5)
    for (let round = 0; round < 3; round++) {
      await expect(run(7)).rejects.toThrow(/take.*index|index.*out of range/s)
      out.read(got)
      expect(got).toEqual(Float32Array.of(1, 2, 3, 4, 5))
      await run(1)
      out.read(got)
      expect(got).toEqual(Float32Array.of(3, 4, 5, 6, 7))
    }
  })

  test('a device without memory says what holds it', () => {
    device('cuda')
    tell({ MEMORY: '1000000' })
    const { Buffer } = native()
    expect(() => new Buffer(2_000_000)).toThrow(
      /gave no memory for a buffer of 2000000 bytes: .* MB of 1 MB are free, and this process holds .* in \d+ buffers/,
    )
  })

  test('doctor compares with the CPU, and tells a failure in one line', async () => {
    const found = await inspectDevice()
    expect(found.filter((f) => !f.ok)).toEqual([])
    expect(found.find((f) => f.name === 'as the CPU')!.value).toMatch(/elementwise steps.*softmax/)
    tell({ FAIL: 'launch:1:719' })
    const broken = await inspectDevice()
    expect(broken.find((f) => f.name === 'wrong')!.value).toMatch(
      /^a chain of elementwise steps \(.*cudaErrorLaunchFailure/,
    )
    expect(device()).toBe('cpu')
  })

  test('memory of one device is refused to a program of another', async () => {
    device('cuda')
    const onGpu = tensor([[1, 2, 3]])
    device('cpu')
    await expect(transpose(onGpu).add(1).read()).rejects.toThrow(
      /memory of one device is given to a program of another/,
    )
  })
})

test('without a CUDA part there is one sentence, and auto is the CPU', () => {
  const before = process.env.STEEPEST_CUDA_LIBRARY
  process.env.STEEPEST_CUDA_LIBRARY = join(folder, 'nothing.so')
  try {
    // A library that is open stays open.
    if (!library) {
      expect(sentence(() => device('cuda'))).toMatch(/^this copy of steepest has no CUDA part/)
      expect(device('auto')).toBe('cpu')
    }
    expect(device()).toBe('cpu')
    expect(() => device('tpu' as 'cpu')).toThrow(/a device is 'cpu' or 'cuda'; got 'tpu'/)
  } finally {
    if (before === undefined) delete process.env.STEEPEST_CUDA_LIBRARY
    else process.env.STEEPEST_CUDA_LIBRARY = before
  }
})
