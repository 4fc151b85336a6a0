import type { Model } from './recompute-model.js'
import { endOfForward } from './recompute-pack.js'
import { type Choice, NOTHING } from './recompute-simulate.js'

/** Gradients that are this part of all together, the smallest, are held: what they take is not worth an instruction. */
const SMALL = 0.01

/** What a second backward pass is for. */
export interface SecondPass {
  readonly choice: Choice
  /** Gradients that are computed again, the last that a backward pass makes first: with one of them held, less of the pass is needed. */
  readonly gradients: readonly number[]
}

/**
 * The choice to hold no gradient over step `norm`, and nothing else that the backward pass makes: all of it is computed again for the updates.
 * What the forward pass made stays. Undefined where there is no forward pass, or nothing to be computed again.
 */
export function secondPass(model: Model, norm: number): SecondPass | undefined {
  const instructions = model.steps.map((step) => step.instruction)
  const end = endOfForward(instructions)
  // A loss may be found together with its first gradients.
  const joint = instructions.findIndex((i) => i.op.name === 'linearCrossEntropyWithGradients')
  const start = joint < 0 ? end : Math.min(end, joint - 1)
  const backward = (v: number) => model.madeAt[v] > start && model.madeAt[v] < norm && model.recipes[v] !== undefined
  const held = model.recipes.flatMap((_, v) => (backward(v) && model.readAt[v].at(-1)! > norm ? [v] : []))
  const all = held.reduce((n, v) => n + model.bytes[v], 0)
  let small = 0
  const gradients = held
    .sort((a, b) => model.bytes[a] - model.bytes[b])
    .filter((v) => (small += model.bytes[v]) > SMALL * all)
  if (end < 0 || gradients.length === 0) return undefined
  const drops = new Map(NOTHING.drops)
  const stack = [...gradients]
  while (stack.length > 0) {
    const v = stack.pop()!
    if (drops.has(v)) continue
    const before = model.readAt[v].filter((t) => t <= norm)
    drops.set(v, [Math.max(model.madeAt[v], ...before)])
    stack.push(...model.recipes[v]!.step.reads.filter(backward))
  }
  return {
    choice: { ...NOTHING, drops },
    gradients: gradients.sort((a, b) => model.madeAt[b] - model.madeAt[a]),
  }
}

/** The choice to hold, of what is given up in a second pass, as many of the gradients as so many bytes have room for. */
export function holdingSome(model: Model, { choice, gradients }: SecondPass, bytes: number): Choice {
  const drops = new Map(choice.drops)
  let left = bytes
  for (const v of gradients) {
    left -= model.bytes[v]
    if (left < 0) break
    drops.delete(v)
  }
  return { ...choice, drops }
}
