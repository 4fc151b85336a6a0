import { SteepestError } from '../errors.js'
import { type Graph, schedule } from '../graph/graph.js'
import { defineOp } from '../ops/define.js'
import { sameShape, showAval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { trace } from './trace.js'

type ReviseAttrs = { body: Graph; states: number }

const reviseRow = defineOp<ReviseAttrs>({
  name: 'revise',
  kind: 'kernel',
  doc: 'States, computed anew by a body where a number is not zero; else they stay where they are, untouched.',
  attrs: { body: 'graph', states: 'int' },
  infer: (inputs, { states }) => inputs.slice(1, states + 1).map(({ shape, dtype }) => ({ shape, dtype })),
  vjp: 'a revision of state has no derivative; use cond',
  batch() {
    throw new SteepestError('NO_DERIVATIVE', {
      who: 'revise',
      rule: 'a revision of state cannot be mapped',
      fix: 'Use cond',
    })
  },
  updates: ({ states }) => Array.from({ length: states }, (_, i) => [i, i + 1] as const),
  flops: (_, __, { body }) =>
    schedule(body.outputs).reduce(
      (n, { op, inputs, outputs, attrs }) => n + (op.flops?.(inputs, outputs, attrs) ?? 0),
      0,
    ),
})

/**
 * @internal `f(...states)` in the place of the states where `predicate` (a scalar) is not zero; else they stay as they are, and nothing is computed
 * or moved. What `f` uses from outside may be anything. No derivative.
 */
export function revise(
  predicate: Tensor,
  states: readonly Tensor[],
  f: (...states: Tensor[]) => readonly Tensor[],
): Tensor[] {
  if (predicate.shape.length !== 0) {
    throw new SteepestError('SHAPE', {
      who: 'revise',
      rule: 'the condition must be one number (a scalar)',
      got: showAval(predicate),
    })
  }
  const { graph, captures } = trace('revise', f, [...states])
  const [was, is] = [states, graph.outputs].map((list) => list.map(showAval).join(', '))
  if (
    graph.outputs.length !== states.length ||
    !graph.outputs.every((t, i) => sameShape(t.shape, states[i].shape)) ||
    was !== is
  ) {
    throw new SteepestError('SHAPE', {
      who: 'revise',
      rule: 'states must keep their shapes and dtypes',
      got: `${is} for ${was}`,
    })
  }
  return reviseRow([predicate, ...states, ...captures], { body: graph, states: states.length })
}
