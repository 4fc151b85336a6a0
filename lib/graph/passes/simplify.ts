import { reshape, transpose } from '../../ops/shape.js'
import { constantOf } from '../constant.js'
import type { Graph } from '../graph.js'
import { rebuild } from '../rebuild.js'

/** Exact identities only: x·1, x/1, x+0 (where x is not −0 that matters to nobody), double negation, casts to the same dtype, views of views. */
export function simplify(graph: Graph): Graph {
  return rebuild(graph, (node, inputs) => {
    const [a, b] = inputs
    switch (node.op.name) {
      case 'mul':
        if (constantOf(b) === 1) return [a]
        if (constantOf(a) === 1) return [b]
        return undefined
      case 'div':
        return constantOf(b) === 1 ? [a] : undefined
      case 'add':
        if (constantOf(b) === 0) return [a]
        if (constantOf(a) === 0) return [b]
        return undefined
      case 'sub':
        return constantOf(b) === 0 ? [a] : undefined
      case 'neg':
        return a.node.op.name === 'neg' ? [a.node.inputs[0]] : undefined
      case 'cast':
        return a.dtype === node.outputs[0].dtype ? [a] : undefined
      case 'reshape':
        if (a.node.op.name === 'reshape') return [reshape(a.node.inputs[0], node.outputs[0].shape)]
        return undefined
      case 'transpose': {
        if (a.node.op.name !== 'transpose') return undefined
        const inner = a.node.attrs.axes as number[]
        return [
          transpose(
            a.node.inputs[0],
            (node.attrs.axes as number[]).map((i) => inner[i]),
          ),
        ]
      }
      default:
        return undefined
    }
  })
}
