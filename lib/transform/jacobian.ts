import { SteepestError } from '../errors.js'
import { eye } from '../ops/assemble.js'
import { reshape } from '../ops/shape.js'
import { isFloat } from '../tensor/dtype.js'
import { showAval } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { grad, vjp } from './grad.js'
import { mapTree } from './tree.js'
import { vmap } from './vmap.js'

/**
 * The Jacobian of `f` by its first argument, in reverse mode: one batched pullback for all elements of the output.
 *
 * @param f gives one float tensor of shape S
 * @returns a function that gives a tree like the first argument, with a tensor [...S, ...shape] for each of its tensors
 */
export function jacobian<A extends readonly unknown[]>(f: (...args: A) => Tensor): (...args: A) => A[0] {
  return (...args) => {
    const [first, ...rest] = args
    const [out, pullback] = vjp((x: A[0]) => f(...([x, ...rest] as unknown as A)), first)
    if (!(out instanceof Tensor) || !isFloat(out.dtype)) {
      throw new SteepestError('ARGUMENT', {
        who: 'jacobian',
        rule: 'the function must return one float tensor',
        got: out instanceof Tensor ? showAval(out) : typeof out,
      })
    }
    const basis = reshape(eye(out.size, { dtype: out.dtype }), [out.size, ...out.shape])
    const rows = vmap((cotangent: Tensor) => pullback(cotangent)[0])(basis)
    return mapTree(rows, (t) => reshape(t, [...out.shape, ...t.shape.slice(1)]))
  }
}

/** The Hessian of the scalar `f` by its one tensor argument x: [...x.shape, ...x.shape]. */
export function hessian(f: (x: Tensor) => Tensor): (x: Tensor) => Tensor {
  return (x) => jacobian((y: Tensor) => grad(f)(y))(x)
}
