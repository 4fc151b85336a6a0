import { checkOptions, SteepestError } from '../errors.js'
import { alias, onesLike } from '../ops/shape.js'
import { isFloat } from '../tensor/dtype.js'
import { showAval } from '../tensor/shape.js'
import { holding, Tensor } from '../tensor/tensor.js'
import { backwardOrZeros, pullOrZeros, record } from './backward.js'
import { inTrace } from './trace.js'
import { flatten, type Flat } from './tree.js'

export interface GradOptions {
  /** The argument (or arguments) that are differentiated; the first by default. */
  argnums?: number | readonly number[]
  /** The function returns `[loss, aux]`; `aux` is handed through. */
  hasAux?: boolean
}

interface Differentiated<R> {
  out: R
  flats: Flat<unknown>[]
  inputs: Tensor[]
}

/** Calls `f` with fresh handles in the places of the float tensors of the chosen arguments. */
function callFresh<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  args: A,
  argnums: readonly number[],
): Differentiated<R> {
  const flats = argnums.map((n) => flatten(args[n]))
  const inputs = flats.flatMap((flat) => flat.tensors.map((t) => alias(t)))
  const fresh: unknown[] = [...args]
  let at = 0
  argnums.forEach((n, i) => {
    fresh[n] = flats[i].unflatten(inputs.slice(at, (at += flats[i].tensors.length)))
  })
  return { out: inTrace(() => f(...(fresh as unknown as A))), flats, inputs }
}

function scalarLoss(who: string, loss: unknown): Tensor {
  if (!(loss instanceof Tensor) || loss.size !== 1 || !isFloat(loss.dtype)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: 'the function must return one float number (or [number, aux] with hasAux)',
      got: loss instanceof Tensor ? showAval(loss) : typeof loss,
      fix: 'Reduce it, for example with mean()',
    })
  }
  return loss
}

/**
 * A function that gives the value of `f` and its gradient: `[value, gradient]`. The gradient has the tree of the differentiated argument
 * (an array of trees where `argnums` is an array); integer tensors in it get zeros.
 */
export function valueAndGrad<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  options: GradOptions = {},
): (...args: A) => [R, A[0]] {
  checkOptions('grad', options, ['argnums', 'hasAux'])
  const list = options.argnums ?? 0
  const argnums = typeof list === 'number' ? [list] : list
  const differentiated = (...args: A): [R, A[0]] => {
    for (const n of argnums) {
      if (!(n in args))
        throw new SteepestError('ARGUMENT', {
          who: 'grad',
          rule: 'argnums must name arguments of the call',
          got: `${n} of ${args.length}`,
        })
    }
    const { out, flats, inputs } = callFresh(f, args, argnums)
    const loss = scalarLoss('grad', options.hasAux ? (out as unknown as [unknown])[0] : out)
    const grads = backwardOrZeros([loss], [onesLike(loss)], inputs)
    let at = 0
    const trees = flats.map((flat) => flat.unflatten(grads.slice(at, (at += flat.tensors.length))))
    return [out, (typeof list === 'number' ? trees[0] : trees) as A[0]]
  }
  return (...args) => holding(() => differentiated(...args))
}

/** A function that gives the gradient of the scalar `f` (with `hasAux`: `[gradient, aux]`). See `valueAndGrad`. */
export function grad<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  options: GradOptions = {},
): (...args: A) => A[0] {
  const both = valueAndGrad(f, options)
  return (...args) => {
    const [out, gradient] = both(...args)
    return options.hasAux ? ([gradient, (out as unknown as [unknown, unknown])[1]] as A[0]) : gradient
  }
}

/** `f` at all of its arguments. */
const callAll = <A extends readonly unknown[], R>(f: (...args: A) => R, args: A) =>
  callFresh(
    f,
    args,
    args.map((_, i) => i),
  )

/**
 * The value of `f` and its pullback: `pullback(cotangent)` gives one gradient tree per argument.
 */
export function vjp<A extends readonly unknown[], R>(f: (...args: A) => R, ...args: A): [R, (cotangent: R) => A] {
  return holding(() => {
    const { out, flats, inputs } = callAll(f, args)
    const tape = record(flatten(out).tensors, inputs)
    return [
      out,
      (cotangent) => {
        const given = flatten(cotangent).tensors
        if (given.length !== tape.outputs.length) {
          throw new SteepestError('ARGUMENT', {
            who: 'vjp',
            rule: 'the cotangent must have the tree of the output',
            got: `${given.length} tensors for ${tape.outputs.length}`,
          })
        }
        const grads = holding(() => pullOrZeros(tape, given))
        let at = 0
        return flats.map((flat) => flat.unflatten(grads.slice(at, (at += flat.tensors.length)))) as unknown as A
      },
    ]
  })
}

/**
 * The value of `f` at the primals and the linear map of its derivative there, traced once for any number of tangents (one tree per
 * argument). Made of two pullbacks: the pullback is linear in its cotangent, so its own pullback is the derivative.
 */
export function linearize<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  ...primals: A
): [R, (...tangents: A) => R] {
  return holding(() => {
    const { out, inputs } = callAll(f, primals)
    const flatOut = flatten(out)
    const seeds = flatOut.tensors.map((t) => alias(onesLike(t)))
    const tape = record(backwardOrZeros(flatOut.tensors, seeds, inputs), seeds)
    return [
      out,
      (...tangents) => {
        const along = flatten(tangents).tensors
        if (along.length !== inputs.length) {
          throw new SteepestError('ARGUMENT', { who: 'jvp', rule: 'tangents must have the tree of the primals' })
        }
        return flatOut.unflatten(holding(() => pullOrZeros(tape, along)))
      },
    ]
  })
}

/** Forward mode: the value of `f` and its derivative along `tangents` (one tree per argument). */
export function jvp<A extends readonly unknown[], R>(f: (...args: A) => R, primals: A, tangents: A): [R, R] {
  const [out, along] = linearize(f, ...primals)
  return [out, along(...tangents)]
}

/** The product of the Hessian of the scalar `f` with `vector`, at `x`: a tree like `x`. */
export function hvp<T>(f: (x: T) => Tensor, x: T, vector: T): T {
  return holding(() => {
    const flat = flatten(x)
    const inputs = flat.tensors.map((t) => alias(t))
    const loss = scalarLoss(
      'hvp',
      inTrace(() => f(flat.unflatten(inputs))),
    )
    const grads = backwardOrZeros([loss], [onesLike(loss)], inputs)
    return flat.unflatten(backwardOrZeros(grads, flatten(vector).tensors, inputs))
  })
}
