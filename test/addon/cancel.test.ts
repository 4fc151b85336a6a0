import { setTimeout } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import { launch } from '../../lib/graph/evaluate.js'
import { build, Queue } from '../../lib/graph/executable.js'
import { add, cond, greater, mul, scan, sum, tensor, type Tensor, whileLoop } from '../../lib/index.js'
import { trace } from '../../lib/transform/trace.js'

const never = (x: Tensor) =>
  whileLoop(
    (s: Tensor) => greater(sum(s), -1),
    (s: Tensor) => mul(s, 0.5),
    x,
  )
const LOOPS: Record<string, (x: Tensor) => Tensor> = {
  'an endless while loop': never,
  'a scan of a thousand million steps': (x) =>
    scan((c: Tensor) => ({ carry: mul(c, 0.999), y: null }), x, null, { length: 1e9 }).carry,
  'a loop in a branch of a loop': (x) =>
    scan(
      (c: Tensor) => ({
        carry: cond(
          greater(sum(c), -1),
          (t: Tensor) => never(t),
          (t: Tensor) => t,
          c,
        ),
        y: null,
      }),
      x,
      null,
      { length: 2 },
    ).carry,
}

const onQueue = () => ({ queue: new Queue(), arena: new (native().Arena)() })
function start(f: (x: Tensor) => Tensor, where: ReturnType<typeof onQueue>) {
  const x = tensor([1, 2])
  const { graph } = trace('test', f, [x])
  const [out] = launch(build(graph), [x], graph.outputs, where)
  return { out, done: where.queue.wait(out.ticket!) }
}

test.each(Object.entries(LOOPS))('%s ends when it is cancelled, and its queue goes on', async (_, f) => {
  const where = onQueue()
  const { done } = start(f, where)
  const behind = start((x) => add(x, 1), where)
  await setTimeout(30)
  const began = performance.now()
  where.queue.cancel()
  await expect(done).rejects.toMatchObject({ code: 'ABORTED' })
  await expect(behind.done).rejects.toMatchObject({ code: 'ABORTED' })
  expect(performance.now() - began).toBeLessThan(5000)
  // Nothing runs now, so that there is nothing to cancel.
  where.queue.cancel()
  const { out, done: after } = start((x) => add(x, 1), where)
  await after
  const bytes = new Uint8Array(8)
  out.buffer.read(bytes)
  expect([...new Float32Array(bytes.buffer)]).toEqual([2, 3])
  where.queue.close()
})

test('closing a queue ends its endless loop', async () => {
  const where = onQueue()
  void start(never, where).done.catch(() => {})
  await setTimeout(30)
  const began = performance.now()
  where.queue.close()
  expect(performance.now() - began).toBeLessThan(5000)
})
