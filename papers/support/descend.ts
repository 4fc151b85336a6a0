import { compile, grad, type optim, scan, type Tensor } from 'steepest'

/**
 * The path of an optimizer: positions after each step, [steps, …], in one native loop.
 * @param gradient of the position and the 0-based step (an int32 scalar)
 */
export function walk(
  gradient: (x: Tensor, step: Tensor) => Tensor,
  start: Tensor,
  optimizer: optim.Optimizer,
  steps: number,
): Tensor {
  return compile((x0: Tensor) => {
    const first = { params: { x: x0 }, state: optimizer.init({ x: x0 }) }
    return scan(
      ({ params, state }) => {
        const next = optimizer.update(params, { x: gradient(params.x, state.step) }, state)
        return { carry: { params: next.params, state: next.state }, y: next.params.x }
      },
      first,
      null as never,
      { length: steps },
    ).ys as Tensor
  })(start)
}

/** The path of an optimizer on a function. */
export const descend = (f: (x: Tensor) => Tensor, start: Tensor, optimizer: optim.Optimizer, steps: number): Tensor =>
  walk((x) => grad(f)(x), start, optimizer, steps)
