import { SteepestError } from '../errors.js'
import { type Graph, schedule } from '../graph/graph.js'
import { defineOp } from '../ops/define.js'
import { placeholder } from '../ops/shape.js'
import { sameShape, type Shape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { trace } from './trace.js'

type ReviseAttrs = { body: Graph; windows: number[] }

const reviseRow = defineOp<ReviseAttrs>({
  name: 'revise',
  kind: 'kernel',
  faults: true,
  doc: 'States (or windows of them, of so many elements), computed anew by a body where a number is not zero; else they stay where they are, untouched.',
  attrs: { body: 'graph', windows: 'ints' },
  infer: (inputs, { windows }) => inputs.slice(1, windows.length + 1).map(({ shape, dtype }) => ({ shape, dtype })),
  vjp: 'a revision of state has no derivative; use cond',
  batch() {
    throw new SteepestError('NO_DERIVATIVE', {
      who: 'revise',
      rule: 'a revision of state cannot be mapped',
      fix: 'Use cond',
    })
  },
  updates: ({ windows }) => windows.map((_, i) => [i, i + 1] as const),
  flops: (_, __, { body }) =>
    schedule(body.outputs).reduce(
      (n, { op, inputs, outputs, attrs }) => n + (op.flops?.(inputs, outputs, attrs) ?? 0),
      0,
    ),
})

/** @internal A part of a long state [n], as a tensor of some shape that begins where an int32 scalar says. */
export interface Window {
  readonly of: Tensor
  readonly at: Tensor
  readonly shape: Shape
}

const isWindow = (state: Tensor | Window): state is Window => 'of' in state

/**
 * @internal `f(...states)` in the place of the states where `predicate` (a scalar) is not zero; else they stay as they are, and nothing is
 * computed or moved. Of a window, `f` sees and gives the part; what comes back is the whole. A window that is not within its state ends the run
 * with an error. What `f` uses from outside may be anything. No derivative.
 */
export function revise(
  predicate: Tensor,
  states: readonly (Tensor | Window)[],
  f: (...states: Tensor[]) => readonly Tensor[],
): Tensor[] {
  if (predicate.shape.length !== 0) {
    throw new SteepestError('SHAPE', {
      who: 'revise',
      rule: 'the condition must be one number (a scalar)',
      got: showAval(predicate),
    })
  }
  const seen = states.map((s) => (isWindow(s) ? { shape: s.shape, dtype: s.of.dtype } : s))
  const { graph, captures } = trace(
    'revise',
    f,
    seen.map(({ shape, dtype }) => placeholder({ shape, dtype })),
  )
  const [was, is] = [seen, graph.outputs].map((list) => list.map(showAval).join(', '))
  const same = graph.outputs.every((t, i) => i < seen.length && sameShape(t.shape, seen[i].shape))
  if (graph.outputs.length !== states.length || !same || was !== is) {
    throw new SteepestError('SHAPE', {
      who: 'revise',
      rule: 'states must keep their shapes and dtypes',
      got: `${is} for ${was}`,
    })
  }
  const windows = states.filter(isWindow)
  // The body knows nothing of where its windows begin.
  const offsets = windows.map(({ at }) => placeholder(at))
  const n = states.length
  return reviseRow(
    [predicate, ...states.map((s) => (isWindow(s) ? s.of : s)), ...windows.map((w) => w.at), ...captures],
    {
      body: { inputs: [...graph.inputs.slice(0, n), ...offsets, ...graph.inputs.slice(n)], outputs: graph.outputs },
      windows: states.map((s) => (isWindow(s) ? sizeOf(s.shape) : -1)),
    },
  )
}
