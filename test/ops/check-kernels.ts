import { createHash } from 'node:crypto'
import { expect } from 'vitest'
import { native } from '../../lib/addon.js'
import { launch, type Pending } from '../../lib/graph/evaluate.js'
import { build, Queue } from '../../lib/graph/executable.js'
import { type Graph, schedule } from '../../lib/graph/graph.js'
import { placeholder } from '../../lib/ops/shape.js'
import { bytesOf, isFloat } from '../../lib/tensor/dtype.js'
import { fromBytes } from '../../lib/tensor/bytes.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad } from '../../lib/transform/index.js'
import type { Arg, OpCase } from './check.js'
import { lossOf } from './check-derivatives.js'
import { expectNumbers, type FloatType, isSmooth, numbersOf, outputsOf, roundTo, tensorOf } from './check-values.js'

interface Run {
  readonly numbers: readonly Float64Array[]
  readonly hash: string
}

/** Every dispatch level of this machine with 1, 2 and 5 threads. */
export function settings(): { level: string; threads: number }[] {
  return native()
    .info()
    .levels.flatMap((level) => [1, 2, 5].map((threads) => ({ level, threads })))
}

/** Streams of one number of threads, made once. */
const queues = new Map<number, { queue: Queue; arena: InstanceType<ReturnType<typeof native>['Arena']> }>()

async function runAt(graph: Graph, inputs: readonly Tensor[], level: string, threads: number): Promise<Run> {
  const before = { level: native().level(), threads: native().threads() }
  try {
    native().level(level)
    native().threads(threads)
    let where = queues.get(threads)
    if (!where) queues.set(threads, (where = { queue: new Queue(), arena: new (native().Arena)() }))
    const results: Pending[] = launch(build(graph), inputs, graph.outputs, where)
    for (const r of results) await where.queue.wait(r.ticket!)
    const hash = createHash('sha256')
    const numbers = results.map((r, i) => {
      const { dtype, size } = graph.outputs[i]
      const { target, values } = fromBytes(size, dtype)
      if (size * bytesOf(dtype) > 0) r.buffer.read(target)
      hash.update(new Uint8Array(target.buffer))
      return Float64Array.from(values())
    })
    return { numbers, hash: hash.digest('hex') }
  } finally {
    native().level(before.level)
    native().threads(before.threads)
  }
}

/** The case's outputs and, where it has derivatives, its gradients, as one graph in one dtype. */
export function graphOf(c: OpCase, args: readonly Arg[], float: FloatType): Graph {
  const inputs = args.map((a) => placeholder({ shape: a.shape, dtype: a.dtype === 'float' ? float : a.dtype }))
  const outputs = [...outputsOf(c, inputs)]
  const smooth = args.flatMap((a, i) => (isSmooth(a) ? [i] : []))
  if (c.derivatives !== 'none' && smooth.length > 0 && outputs.some((y) => isFloat(y.dtype))) {
    const loss = (xs: readonly Tensor[]) =>
      lossOf(
        outputsOf(
          c,
          inputs.map((t, i) => (smooth.includes(i) ? xs[smooth.indexOf(i)] : t)),
        ),
      )
    outputs.push(...grad(loss)(smooth.map((i) => inputs[i]) as readonly Tensor[]))
  }
  // Constants of the case are native memory: further inputs.
  const leaves = new Set(
    schedule(outputs).flatMap((node) => [...node.inputs, ...node.outputs].filter((t) => t.storage)),
  )
  return { inputs: [...inputs, ...leaves], outputs }
}

const BOUNDS = { float32: 4e-6, bfloat16: 2e-2 }

/** float32 and bfloat16 kernels against float64 on the same inputs; and the same bits for every number of threads, and at every level. */
export async function checkKernels(c: OpCase, args: readonly Arg[]): Promise<void> {
  const dtypes = args.some((a) => a.dtype === 'float') ? (c.dtypes ?? ['float32', 'bfloat16']) : (['float32'] as const)
  for (const dtype of dtypes) {
    const values = args.map((a, i) => numbersOf(a, i + 1, dtype))
    const wide = graphOf(c, args, 'float64')
    const best = native().info().levels.at(-1)!
    const given = (graph: Graph, float: FloatType) => [
      ...args.map((a, i) => tensorOf(a, values[i], float)),
      ...graph.inputs.slice(args.length),
    ]
    const reference = await runAt(wide, given(wide, 'float64'), best, 2)
    const graph = graphOf(c, args, dtype)
    const inputs = given(graph, dtype)
    const hashes = new Map<string, string>()
    for (const { level, threads } of settings()) {
      const { numbers, hash } = await runAt(graph, inputs, level, threads)
      const known = hashes.get(c.perLevel ? level : '')
      if (known === undefined) {
        hashes.set(c.perLevel ? level : '', hash)
        numbers.forEach((got, i) => {
          const out = graph.outputs[i].dtype
          const bound = !isFloat(out) || out === 'float64' ? 1e-6 : (c.bounds?.[dtype] ?? BOUNDS[dtype])
          expectNumbers(
            `output ${i} in ${dtype} at level ${level}`,
            got,
            isFloat(out) ? roundTo(out, reference.numbers[i]) : reference.numbers[i],
            bound,
          )
        })
      } else expect(hash, `bits in ${dtype} at level ${level} with ${threads} threads`).toBe(known)
    }
  }
}
