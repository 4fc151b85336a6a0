import { assign } from '../ops/control.js'
import { add, cast, sub, where } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import { RULES } from '../ops/rules.gen.js'
import { reshape, scalar, zeros } from '../ops/shape.js'
import { type Mover, type Operands, type Parts, slotsInOrder } from '../optim/base.js'
import { sameShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { poweredBases, randomBasis, singularBases } from './basis.js'
import type { Decay } from './decay.js'
import type { Projecting } from './projection-options.js'
import { type Bases, project, rotate, type Space, spaceOf } from './projection.js'
import { AGE, applier, argsWith, asMatrix, DUE, firstDue, gradOf, refreshed, wideOf } from './small.js'

/** @internal Bases by parameter name in the place of those that a method would find. */
export type GivenBases = (name: string, space: Space) => Bases | undefined

/** Slots whose elements are means of squares, which turn otherwise than means. */
const SQUARES: ReadonlySet<string> = new Set([
  ...RULES.flatMap((rule) => rule.slots.filter((s) => s.positive).map((s) => s.name)),
  'h',
])

/** @internal What the step of a method gets: the gradient in the small space, and the rule to move it by. */
export interface InSpace {
  readonly o: Operands
  readonly space: Space
  readonly bases: Bases
  /** The whole gradient as a matrix, with coupled decay in it. */
  readonly g: Tensor
  /** What gradients are still to be multiplied by. */
  readonly scale: Tensor | undefined
  /** The gradient in the small space, not scaled either. */
  readonly low: Tensor
  /** The rule's step in the small space, at this learning rate (by default that of the step). */
  move(low: Tensor, options?: { scale?: Tensor; lr?: Tensor }): { step: Tensor; slots: Record<string, Tensor> }
  /** The step count that the rule sees, a float64 scalar. */
  readonly args: Tensor
}

/** @internal A mover that keeps its states in a small space. `step` gives the whole step of the weight, and more states by their names. */
export interface ProjectedParts {
  readonly who: string
  readonly inner: Mover
  readonly decay: Decay
  readonly parts: Parts
  readonly options: Projecting
  readonly given?: GivenBases
  /** First states that the method has beside the rule's. */
  readonly more?: (p: Tensor) => Record<string, Tensor>
  readonly step: (at: InSpace, more: Record<string, Tensor>) => { step: Tensor; slots: Record<string, Tensor> }
}

const basisNames = (space: Space): string[] => [
  ...(space.left ? ['basis'] : []),
  ...(space.right ? [space.left ? 'basisRight' : 'basis'] : []),
]

const toBases = (space: Space, list: readonly Tensor[]): Bases =>
  space.left ? { left: list[0], right: space.right ? list[1] : undefined } : { right: list[0] }

const toList = (space: Space, bases: Bases): Tensor[] => [
  ...(space.left ? [bases.left!] : []),
  ...(space.right ? [bases.right!] : []),
]

/** A number from a name, for what is random and belongs to a parameter. */
const hashOf = (name: string): number => [...name].reduce((h, c) => (Math.imul(h, 31) + c.charCodeAt(0)) | 0, 7) >>> 0

/** @internal */
export function projectedMover(made: ProjectedParts): Mover {
  const { who, inner, decay, parts, options, given } = made
  const apply = applier(who, parts, decay)
  const resets = options.states === 'reset'
  const space = (p: Tensor): Space => {
    const [rows, cols] = asMatrix(p).shape
    return spaceOf(options.projType, options.rank, rows, cols)
  }
  const small = (p: Tensor): Tensor => zeros(space(p).low, wideOf(p))
  const key = random.key(0)

  return {
    init(p, name) {
      const at = space(p)
      const lengths = [...(at.left ? [at.rows] : []), ...(at.right ? [at.cols] : [])]
      const bases = lengths.map((n, i) => randomBasis(n, at.rank, random.foldIn(key, hashOf(name)), wideOf(p), i))
      return {
        ...Object.fromEntries(basisNames(at).map((slot, i) => [slot, bases[i]])),
        [DUE]: firstDue(),
        ...(resets ? { [AGE]: scalar(0, 'int32') } : {}),
        ...made.more?.(p),
        ...apply.init(p, name),
        ...inner.init(small(p), name),
      }
    },
    step(o) {
      const { p, name } = o
      const at = space(p)
      const names = basisNames(at)
      const own = made.more ? Object.keys(made.more(p)) : []
      const applied = Object.keys(apply.init(p, name))
      const rule = Object.keys(inner.init(small(p), name))
      const [due, ...held] = slotsInOrder(who, o, [DUE, ...names, ...(resets ? [AGE] : []), ...rule])
      const { g, scale } = gradOf(o, decay)
      const first = given?.(name, at)

      // What changes with the space: the bases, and the states where they do not stay as they are.
      const turned = options.states === 'keep' ? [] : held.slice(names.length)
      const fresh = refreshed(
        { gap: options.updateGap, stagger: options.stagger },
        o,
        g,
        due,
        [...held.slice(0, names.length), ...turned],
        (isFirst, ...old) => {
          const before = toBases(at, old)
          const rounds = where(isFirst, 2 * options.rounds + 2, scalar(options.rounds, 'int32'))
          const bases = first ?? (options.method === 'svd' ? singularBases(at, g) : poweredBases(at, g, before, rounds))
          const states = old.slice(names.length)
          if (resets) return [...toList(at, bases), ...firstStates(states.slice(1), rule, at, inner, p, name)]
          return [...toList(at, bases), ...states.map((s, i) => turn(s, rule[i], at, before, bases, isFirst))]
        },
      )
      const bases = toBases(at, fresh.states)
      const kept = options.states === 'keep' ? held.slice(names.length) : fresh.states.slice(names.length)
      const age = resets ? kept[0] : undefined
      const t = age && add(age, 1)
      const states = Object.fromEntries((age ? kept.slice(1) : kept).map((s, i) => [rule[i], s]))
      const args = argsWith(o.args, { t })

      const proxy = decay.kind === 'own' ? project(at, bases, asMatrix(cast(p, wideOf(p)))) : small(p)
      const done = made.step(
        {
          o,
          space: at,
          bases,
          g,
          scale,
          low: project(at, bases, g),
          args,
          move(low, { scale: by, lr } = {}) {
            const next = inner.step({ ...o, p: proxy, g: low, scale: by, slots: states, args: argsWith(args, { lr }) })
            return { step: decay.kind === 'own' ? sub(next.p, proxy) : next.p, slots: next.slots }
          },
        },
        Object.fromEntries(slotsInOrder(who, o, own).map((s, i) => [own[i], s])),
      )
      const low = Object.fromEntries(slotsInOrder(who, o, applied).map((s, i) => [applied[i], s]))
      const moved = apply.step({ ...o, g: reshape(done.step, p.shape), scale: undefined, slots: low })
      return {
        p: moved.p,
        slots: {
          ...Object.fromEntries(names.map((slot, i) => [slot, fresh.states[i]])),
          [DUE]: fresh.due,
          ...(age && t ? { [AGE]: assign(age, t) } : {}),
          ...moved.slots,
          ...done.slots,
        },
      }
    },
  }
}

/** The age and the rule's states, begun anew. */
function firstStates(
  states: readonly Tensor[],
  rule: readonly string[],
  at: Space,
  inner: Mover,
  p: Tensor,
  name: string,
): Tensor[] {
  const begun = inner.init(zeros(at.low, wideOf(p)), name)
  return [scalar(0, 'int32'), ...states.map((s, i) => cast(begun[rule[i]], s.dtype))]
}

/** A state in the new coordinates; one that has not the small shape begins anew. */
function turn(s: Tensor, slot: string, at: Space, from: Bases, to: Bases, isFirst: Tensor): Tensor {
  if (!sameShape(s.shape, at.low)) return s
  // Before the first choice there is nothing to turn, and 0 stays 0.
  return where(isFirst, s, rotate(at, from, to, s, SQUARES.has(slot)))
}
