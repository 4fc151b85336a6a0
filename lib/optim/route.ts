import { arange } from '../ops/assemble.js'
import { bytesOf } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { add, equal, mul, where } from '../ops/elementwise.js'
import { assign } from '../ops/control.js'
import { argsOf } from './base.js'
import type { Optimizer, OptimizerState, UpdateContext, Updated } from './optimizer.js'
import { clippedGrads, movedOf } from './wrap.js'

/** One of the optimizers that share the parameters of a model. */
export interface Route {
  /** Leaves alone (as frozen) what is not its own. */
  readonly optimizer: Optimizer
  /** Its learning rate over that of the whole. */
  readonly lrRatio: number
}

/** An optimizer that gives every parameter to the one of `routes` that moves it; clipping is over all of them together. */
export function routed(
  whole: Pick<Optimizer, 'name' | 'rule' | 'hyper' | 'clip'>,
  routes: readonly Route[],
): Optimizer {
  const who = `optim.${whole.name}`
  const [first] = routes
  const init = (params: unknown): OptimizerState => {
    const slots: Record<string, Record<string, Tensor>> = {}
    const states = routes.map(({ optimizer }) => optimizer.init(params))
    for (const state of states)
      for (const [slot, by] of Object.entries(state.slots)) Object.assign((slots[slot] ??= {}), by)
    return { step: states[0].step, slots }
  }
  const moved = (params: unknown) => routes.flatMap(({ optimizer }) => optimizer.moved(params))
  const optimizer: Optimizer = {
    ...first.optimizer,
    ...whole,
    moved,
    init,
    update<P>(params: P, grads: unknown, state: OptimizerState, context: UpdateContext = {}): Updated<P> {
      const clip = clippedGrads(who, optimizer, params, grads, context)
      const args = argsOf(who, first.optimizer.lr, state, context)
      let at = params
      const slots: Record<string, Record<string, Tensor>> = {}
      for (const slot of Object.keys(state.slots)) slots[slot] = {}
      for (const { optimizer: own, lrRatio } of routes) {
        const names = new Set(movedOf(own, params).map((m) => m.name))
        if (names.size === 0) continue
        const mine = <T>(by: Readonly<Record<string, T>>): Record<string, T> =>
          Object.fromEntries(Object.entries(by).filter(([name]) => names.has(name)))
        const next = own.update(
          at,
          mine(clip.grads),
          { step: state.step, slots: Object.fromEntries(Object.entries(state.slots).map(([s, by]) => [s, mine(by)])) },
          {
            ...context,
            lr: undefined,
            scale: undefined,
            clipped: true,
            args: lrRatio === 1 ? args : slowed(args, lrRatio),
          },
        )
        at = next.params
        for (const [slot, by] of Object.entries(next.state.slots)) Object.assign(slots[slot], by)
      }
      return { params: at, state: { step: assign(state.step, add(state.step, 1)), slots }, norm: clip.norm }
    },
    stateBytes: (params) =>
      Object.fromEntries(
        Object.entries(init(params).slots).map(([slot, by]) => [
          slot,
          Object.values(by).reduce((n, t) => n + t.size * bytesOf(t.dtype), 0),
        ]),
      ),
  }
  return optimizer
}

/** The numbers of a step with another learning rate, which comes first. */
const slowed = (args: Tensor, ratio: number): Tensor => where(equal(arange(args.shape[0]), 0), mul(args, ratio), args)
