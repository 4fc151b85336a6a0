import { SteepestError } from '../errors.js'
import { assign } from '../ops/control.js'
import { add, cast, sub, where } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import { RULES } from '../ops/rules.gen.js'
import { reshape, scalar, zeros } from '../ops/shape.js'
import { argument, type Mover, type Operands, slotsInOrder } from '../optim/base.js'
import { sameShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Projector } from './projector.js'
import {
  AGE,
  applier,
  argsWith,
  asMatrix,
  constantKey,
  DUE,
  firstDue,
  gradOf,
  type Refresh,
  refreshed,
  wideOf,
} from './small.js'
import type { Inner } from './wrap.js'

/** @internal Choices by parameter name in the place of those that a projector would make, as its slots hold them. */
export type Given = (name: string, projector: Projector) => readonly Tensor[] | undefined

/** What becomes of the states at a new choice. */
export type StatesAtChoice = 'keep' | 'reset' | 'rotate'

/** Slots whose elements are means of squares, which turn otherwise than means. */
const SQUARES: ReadonlySet<string> = new Set([
  ...RULES.flatMap((rule) => rule.slots.filter((s) => s.positive).map((s) => s.name)),
  'h',
])

/** @internal What the step of a method gets: the gradient, small and whole, and the rule to move it by. */
export interface InSpace {
  readonly o: Operands
  readonly projector: Projector
  /** The whole gradient as a matrix, with coupled decay in it. */
  readonly g: Tensor
  /** What gradients are still to be multiplied by. */
  readonly scale: Tensor | undefined
  /** The small gradient, not scaled either. */
  readonly low: Tensor
  up(low: Tensor): Tensor
  put(outside: Tensor, low: Tensor): Tensor
  /** Learning rate and step count as the rule sees them. */
  readonly args: Tensor
  /** The rule's step of the small tensor: by the rate of the step (times `lrScale`), or by another one. */
  move(
    low: Tensor,
    options?: { scale?: Tensor; lr?: Tensor; lrScale?: number },
  ): { step: Tensor; slots: Record<string, Tensor> }
}

/** @internal A mover that keeps its states in a small space. */
export interface ProjectedParts {
  readonly who: string
  readonly inner: Inner
  readonly refresh: Refresh
  readonly states: StatesAtChoice
  readonly seed: number
  readonly given?: Given
  projector(rows: number, cols: number, dtype: 'float32' | 'float64'): Projector
  /** First states that the method has beside the rule's. */
  more?(p: Tensor): Record<string, Tensor>
  /** Whether what is small is all that a step needs of a gradient, and micro-batches sum no more. */
  readonly onlyLow?: boolean
  /** The whole step of the weight as a matrix, and all states of rule and method. */
  step(at: InSpace, more: Readonly<Record<string, Tensor>>): { step: Tensor; slots: Record<string, Tensor> }
}

/** A number from a name, for what is random and belongs to a parameter. */
const hashOf = (name: string): number => [...name].reduce((h, c) => (Math.imul(h, 31) + c.charCodeAt(0)) | 0, 7) >>> 0

const pick = (slots: readonly string[], from: readonly Tensor[]): Record<string, Tensor> =>
  Object.fromEntries(slots.map((slot, i) => [slot, from[i]]))

/** @internal Moves parameters by a rule that runs on small tensors. */
export function projectedMover(method: ProjectedParts): Mover {
  const { who, given } = method
  const { mover: rule, decay, parts } = method.inner
  const apply = applier(who, parts, decay)
  const resets = method.states === 'reset'
  const projectorOf = (p: Tensor): Projector => {
    const [rows, cols] = asMatrix(p).shape
    return method.projector(rows, cols, wideOf(p))
  }
  const keyOf = (name: string): Tensor => random.foldIn(constantKey(method.seed), hashOf(name))
  const firstOf = (p: Tensor, name: string, { low }: Projector): Record<string, Tensor> =>
    rule.init(zeros(low, wideOf(p)), name)

  /** The choice and the rule's states at this step, and the counters that go on. */
  const chosen = (o: Operands, projector: Projector, g: Tensor, ruleSlots: readonly string[]) => {
    const { p, name } = o
    const count = projector.slots.length
    const [due, ...all] = slotsInOrder(who, o, [DUE, ...projector.slots, ...(resets ? [AGE] : []), ...ruleSlots])
    const injected = given?.(name, projector)
    const t = cast(argument(o.args, 1), 'int32')
    // What changes with the choice: the choice, and the states where they do not stay as they are.
    const changing = method.states === 'keep' ? count : all.length
    const fresh = refreshed(
      method.refresh,
      o,
      projector.looks ? g : undefined,
      due,
      all.slice(0, changing),
      (first, ...old) => {
        const held = old.slice(0, count)
        const now = injected ?? projector.choose({ g, held, first, key: random.foldIn(keyOf(name), t) })
        const states = old.slice(count)
        if (!resets) return [...now, ...states.map((s, i) => turned(who, projector, held, now, s, ruleSlots[i], first))]
        const begun = states.length > 1 ? firstOf(p, name, projector) : {}
        return [
          ...now,
          ...(states.length ? [scalar(0, 'int32')] : []),
          ...states.slice(1).map((_, i) => begun[ruleSlots[i]]),
        ]
      },
      projector.gapOf && ((states) => projector.gapOf!(states.slice(0, count))),
    )
    const rest = [...fresh.states.slice(count), ...all.slice(changing)]
    const age = resets ? rest[0] : undefined
    return {
      due: fresh.due,
      held: fresh.states.slice(0, count),
      age,
      states: pick(ruleSlots, age ? rest.slice(1) : rest),
    }
  }

  const ruleSlotsOf = (p: Tensor, name: string, projector: Projector) => Object.keys(firstOf(p, name, projector))

  /** The parameter moved by the small gradient, which is that of the choice. */
  const moved = (
    o: Operands,
    projector: Projector,
    { due, held, age, states }: ReturnType<typeof chosen>,
    { g, scale, low }: { g?: Tensor; scale: Tensor | undefined; low: Tensor },
  ) => {
    const { p } = o
    const t = age && add(age, 1)
    const args = argsWith(o.args, { t })
    const down = (x: Tensor) => projector.down(held, x)
    const proxy = decay.kind === 'own' ? down(asMatrix(cast(p, wideOf(p)))) : zeros(projector.low, wideOf(p))
    const own = Object.keys(method.more?.(p) ?? {})
    const done = method.step(
      {
        o,
        projector,
        get g(): Tensor {
          if (g) return g
          throw new Error(`${who} reads a gradient that was summed small`)
        },
        scale,
        low,
        args,
        up: (small) => projector.up(held, small),
        put: (outside, small) => projector.put(held, outside, small),
        move(small, { scale: by, lr, lrScale = 1 } = {}) {
          const at = lr ? { args: argsWith(args, { lr }), lrScale } : { args, lrScale: o.lrScale * lrScale }
          const next = rule.step({ ...o, ...at, p: proxy, g: small, scale: by, slots: states })
          return { step: decay.kind === 'own' ? sub(next.p, proxy) : next.p, slots: next.slots }
        },
      },
      pick(own, slotsInOrder(who, o, own)),
    )
    const applied = Object.keys(apply.init(p, o.name))
    const next = apply.step({
      ...o,
      g: reshape(done.step, p.shape),
      scale: undefined,
      slots: pick(applied, slotsInOrder(who, o, applied)),
    })
    return {
      p: next.p,
      slots: {
        ...pick(projector.slots, held),
        [DUE]: due,
        ...(age && t ? { [AGE]: assign(age, t) } : {}),
        ...next.slots,
        ...done.slots,
      },
    }
  }

  return {
    init(p, name) {
      const projector = projectorOf(p)
      return {
        ...pick(projector.slots, projector.first(keyOf(name))),
        [DUE]: firstDue(),
        ...(resets ? { [AGE]: scalar(0, 'int32') } : {}),
        ...method.more?.(p),
        ...apply.init(p, name),
        ...firstOf(p, name, projector),
      }
    },
    step(o) {
      const { p, name } = o
      const projector = projectorOf(p)
      const { g, scale } = gradOf(o, decay)
      const choice = chosen(o, projector, g, ruleSlotsOf(p, name, projector))
      return moved(o, projector, choice, { g, scale, low: projector.down(choice.held, g) })
    },
    small(p, name) {
      if (!method.onlyLow || (decay.kind === 'coupled' && decay.rate !== 0)) return undefined
      const projector = projectorOf(p)
      const ruleSlots = ruleSlotsOf(p, name, projector)
      return {
        aval: { shape: projector.low, dtype: wideOf(p) },
        begin(o) {
          const { g } = gradOf(o, decay)
          const { due, held, age, states } = chosen(o, projector, g, ruleSlots)
          const choice = { ...pick(projector.slots, held), [DUE]: due, ...(age ? { [AGE]: age } : {}) }
          return { low: projector.down(held, g), slots: { ...choice, ...states } }
        },
        low: (o) => projector.down(slotsInOrder(who, o, projector.slots), gradOf(o, decay).g),
        step(o) {
          const [due, ...held] = slotsInOrder(who, o, [DUE, ...projector.slots])
          const [age] = resets ? slotsInOrder(who, o, [AGE]) : []
          const states = pick(ruleSlots, slotsInOrder(who, o, ruleSlots))
          return moved(o, projector, { due, held, age, states }, { scale: o.scale, low: o.g })
        },
      }
    },
  }
}

/** A state in the coordinates of a new choice; one that has not the small shape stays as it is. */
function turned(
  who: string,
  { low, turn }: Projector,
  before: readonly Tensor[],
  now: readonly Tensor[],
  state: Tensor,
  slot: string,
  first: Tensor,
): Tensor {
  if (!turn || !sameShape(state.shape, low)) return state
  if (state.dtype === 'uint8') {
    throw new SteepestError('OPTION', {
      who: `${who}: ${slot}`,
      rule: 'states in eight bits cannot be turned into new coordinates',
      fix: "Say states: 'keep' or 'reset'",
    })
  }
  // Before the first choice there is nothing to turn, and 0 stays 0.
  return where(first, state, turn(before, now, state, SQUARES.has(slot)))
}
