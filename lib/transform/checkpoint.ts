import type { Graph } from '../graph/graph.js'
import { substitute } from '../graph/rebuild.js'
import { alias, barrier, zerosLike } from '../ops/shape.js'
import type { OpDef } from '../ops/define.js'
import { makeNode, type Tensor } from '../tensor/tensor.js'
import { backward } from './backward.js'
import { trace } from './trace.js'
import { flatten } from './tree.js'

/** A body that stands in the graph as one node until the passes put it in its place. */
function bodyOp(name: string, graph: Graph, vjp: OpDef['vjp']): OpDef {
  return {
    name,
    kind: 'composite',
    doc: 'A function of the user.',
    attrs: {},
    infer: () => graph.outputs.map((t) => ({ shape: t.shape, dtype: t.dtype })),
    define: (inputs) => [...substitute(graph, inputs)],
    vjp,
  }
}

/**
 * A function with the value and derivatives of `f` whose insides are not kept for the backward pass but computed again there.
 */
export function checkpoint<A extends readonly unknown[], R>(f: (...args: A) => R): (...args: A) => R {
  return (...args) => {
    const { graph, captures, out } = trace('checkpoint', f, args)
    const op = bodyOp('checkpoint', graph, ({ inputs, grads }) => {
      const fresh = inputs.map(barrier)
      return backward(substitute(graph, fresh), grads, fresh)
    })
    return out.unflatten(makeNode(op, [...flatten(args).tensors, ...captures], {}))
  }
}

/**
 * A function with the value of `f` and a derivative of the user's own.
 *
 * @param pullback gets the arguments, the output and its cotangent, and gives one gradient tree per argument (null: none);
 *   what `f` uses from outside gets no gradient
 */
export function customVjp<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  pullback: (args: A, out: R, cotangent: R) => readonly unknown[],
): (...args: A) => R {
  return (...args) => {
    const { graph, captures, out } = trace('customVjp', f, args)
    const flat = flatten(args)
    const counts = args.map((arg) => flatten(arg).tensors.length)
    const op = bodyOp('customVjp', graph, ({ inputs, outputs, grads }) => {
      const given = flat.unflatten(inputs.slice(0, flat.tensors.length).map(alias)) as unknown as A
      const cotangent = outputs.map((t, i) => grads[i] ?? zerosLike(t))
      const trees = pullback(given, out.unflatten(outputs), out.unflatten(cotangent))
      const list = trees.flatMap((tree, i): (Tensor | null)[] =>
        tree === null || tree === undefined ? new Array<null>(counts[i]).fill(null) : flatten(tree).tensors,
      )
      return [...list, ...captures.map(() => null)]
    })
    return out.unflatten(makeNode(op, [...flat.tensors, ...captures], {}))
  }
}
