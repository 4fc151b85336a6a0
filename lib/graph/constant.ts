import type { Tensor } from '../tensor/tensor.js'

/** The number that every element of `t` has, where that is known: views of one number, but not what a barrier keeps apart. */
export function constantOf(t: Tensor): number | undefined {
  let at = t
  while (at.node.op.kind === 'view' && at.node.op.name !== 'alias') at = at.node.inputs[0]
  return at.node.op.name === 'constant' ? (at.node.attrs.value as number) : undefined
}
