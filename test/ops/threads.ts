import { expect } from 'vitest'
import { native } from '../../lib/addon.js'
import { launch, pendingOf } from '../../lib/graph/evaluate.js'
import { build, Queue } from '../../lib/graph/executable.js'
import { schedule } from '../../lib/graph/graph.js'
import { bytesOf } from '../../lib/tensor/dtype.js'
import { sizeOf } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'

/** The bytes of tensors, computed by a program and a stream of their own with `threads` threads. */
async function bytesWith(threads: number, outputs: readonly Tensor[]): Promise<Uint8Array[]> {
  const before = native().threads()
  native().threads(threads)
  try {
    const inputs = [...new Set(schedule(outputs).flatMap((node) => node.inputs.filter((t) => t.storage)))]
    const queue = new Queue()
    const results = launch(build({ inputs, outputs }), inputs, outputs, { queue, arena: new (native().Arena)() })
    await queue.wait(results[0].ticket!)
    queue.close()
    return results.map((storage, i) => {
      const bytes = new Uint8Array(sizeOf(outputs[i].shape) * bytesOf(outputs[i].dtype))
      pendingOf({ storage } as Tensor).buffer.read(bytes)
      return bytes
    })
  } finally {
    native().threads(before)
  }
}

/** The same bits with 1, 2 and 5 threads. `f` makes its tensors anew each time. */
export async function expectSameBits(f: () => readonly Tensor[]): Promise<void> {
  const wanted = await bytesWith(1, f())
  for (const threads of [2, 5]) {
    const got = await bytesWith(threads, f())
    // Byte by byte, vitest takes seconds for a megabyte.
    const differing = wanted.flatMap((bytes, i) => (Buffer.compare(bytes, got[i]) === 0 ? [] : [i]))
    expect(differing, `outputs that differ with ${threads} threads`).toEqual([])
  }
}
