import { afterAll, describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import { device } from '../../lib/device.js'
import '../../lib/index.js'
import { launch } from '../../lib/graph/evaluate.js'
import { build } from '../../lib/graph/executable.js'
import { fromStorage } from '../../lib/ops/shape.js'
import { isFloat } from '../../lib/tensor/dtype.js'
import { fromBytes } from '../../lib/tensor/bytes.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { type Arg, allCases, type OpCase } from '../ops/check.js'
import { graphOf } from '../ops/check-kernels.js'
import { expectNumbers, type FloatType, numbersOf, tensorOf } from '../ops/check-values.js'
import { fibersLibrary } from './library.js'
import { missing } from './missing.js'

const library = await fibersLibrary()
const families = await allCases()

/** Largest error against the CPU, relative to the largest number of an output (and to 1): sums are taken in another order. */
const BOUNDS = { float64: 1e-12, float32: 4e-6, bfloat16: 2e-2 }

/** The name of the op whose kernel a program lacks. */
const lacking = (error: unknown): string | undefined =>
  /there is no CUDA kernel for (\w+)/.exec(error instanceof Error ? error.message : '')?.[1]

/** A constant of a case (a random key, say), made where the cases were read, on the device in use. */
function moved(t: Tensor): Tensor {
  const bytes = new Uint8Array(t.storage!.bytes)
  if (bytes.length > 0) t.storage!.buffer.read(bytes)
  const buffer = new (native().Buffer)(bytes.length)
  if (bytes.length > 0) buffer.write(bytes)
  return fromStorage({ buffer, bytes: bytes.length }, t)
}

/** A case's outputs and gradients on one device. */
async function numbersOn(where: 'cpu' | 'cuda', c: OpCase, args: readonly Arg[], dtype: FloatType) {
  device(where)
  try {
    const graph = graphOf(c, args, dtype)
    const inputs = [
      ...args.map((a, i) => tensorOf(a, numbersOf(a, i + 1, dtype), dtype)),
      ...graph.inputs.slice(args.length).map(moved),
    ]
    const results = launch(build(graph), inputs, graph.outputs)
    for (const r of results) await r.queue!.wait(r.ticket!)
    return results.map((r, i) => {
      const { size, dtype: of } = graph.outputs[i]
      const { target, values } = fromBytes(size, of)
      if (target.byteLength > 0) r.buffer.read(target)
      return { dtype: of, numbers: Float64Array.from(values()) }
    })
  } finally {
    device('cpu')
  }
}

describe.runIf(library)('the table on fibers, against the CPU', () => {
  process.env.STEEPEST_CUDA_LIBRARY = library
  const run = new Set<string>()
  const lack = new Set<string>()

  test('kernels that are not there yet are those of the list', () => {
    device('cuda')
    const there = native().deviceInfo()!.missing
    device('cpu')
    expect([...there].sort()).toEqual([...missing].sort())
  })

  describe.each(families.map(({ family, cases }) => [family, cases] as const))('%s', (_, cases) => {
    test.each(cases.map((c) => [c.name ? `${c.ops[0]}, ${c.name}` : c.ops[0], c] as const))('%s', async (_, c) => {
      const dtypes = c.at[0].some((a) => a.dtype === 'float')
        ? (c.dtypes ?? ['float32', 'bfloat16'])
        : (['float32'] as const)
      const large = process.env.STEEPEST_LONG ? (c.large ?? []) : (c.large ?? []).slice(0, 1)
      for (const dtype of dtypes) {
        for (const args of [...c.at, ...large]) {
          // The gradient's kernels may be missing where the op's own is there.
          for (const part of [c, { ...c, derivatives: 'none' as const }]) {
            let got: Awaited<ReturnType<typeof numbersOn>>
            try {
              got = await numbersOn('cuda', part, args, dtype)
            } catch (error) {
              const name = lacking(error)
              if (name === undefined) throw error
              expect(missing, `${name} is said to be missing`).toContain(name)
              lack.add(name)
              continue
            }
            const wanted = await numbersOn('cpu', part, args, dtype)
            got.forEach(({ dtype: of, numbers }, i) => {
              const bound = isFloat(of) ? Math.max(BOUNDS[of], c.bounds?.[of as 'float32'] ?? 0) : 0
              expectNumbers(`output ${i} in ${dtype}`, numbers, wanted[i].numbers, bound)
            })
            for (const name of c.ops) if (!missing.includes(name)) run.add(name)
            break
          }
        }
      }
    })
  })

  afterAll(() => {
    console.log(
      `rows that ran on fibers: ${[...run].sort().join(' ') || 'none'}; kernels that are missing: ${[...lack].sort().join(' ') || 'none'}`,
    )
  })
})

test.skipIf(library)('skipped: the CUDA sources on fibers (npm run fibers builds them)', () => {
  expect(library).toBeUndefined()
})
