import { SteepestError } from '../errors.js'
import { namedTensors } from '../nn/module.js'
import { makeOptimizer, type Mover, type Parts, partsOf, sumLike } from '../optim/base.js'
import type { Optimizer } from '../optim/optimizer.js'
import { type Decay, decayOf } from './decay.js'
import { type Match, taker } from './options.js'

/** @internal How a method moves the parameters that it takes. */
export interface Method {
  readonly name: string
  readonly match: Match | undefined
  readonly hyper: Readonly<Record<string, number | boolean>>
  mover(inner: Inner): Mover
}

/** @internal What a method is built around. */
export interface Inner {
  readonly mover: Mover
  readonly decay: Decay
  readonly parts: Parts
  /** Hyper-parameters of the rule in this group. */
  readonly hyper: Readonly<Record<string, unknown>>
}

/** Hyper-parameters of a group, `betas` taken apart. */
function hyperOf({ hyper }: Parts, group: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { betas, ...rest } = group
  const [beta1, beta2] = Array.isArray(betas) ? (betas as unknown[]) : [hyper.beta1, hyper.beta2]
  return { ...hyper, beta1, beta2, ...rest }
}

/** What an optimizer was made of, or an error that says why it cannot run in a small space. */
export function requireParts(who: string, base: Optimizer): Parts {
  const parts = partsOf(base)
  if (parts) return parts
  throw new SteepestError('ARGUMENT', {
    who,
    rule: 'the optimizer inside must move each parameter by its gradient alone',
    got: base.name,
    fix: 'Wrap the other way round: optim.sam(memory.galore(optim.adamw()))',
  })
}

/** @internal What a method in a small space is built around, for a group of parameters. */
export function innerOf(parts: Parts, group: Readonly<Record<string, unknown>>): Inner {
  const decay = decayOf(parts, group)
  // What decays the whole weight must not decay the small step too.
  const bare = decay.kind === 'own' || decay.rate === 0 ? group : { ...group, weightDecay: 0 }
  return { mover: parts.mover(bare), decay, parts, hyper: hyperOf(parts, group) }
}

/** @internal An optimizer made of the parts of another, which must have parameters to take. */
export function wrapped(
  base: Optimizer,
  method: Pick<Method, 'name' | 'match'> & { make: (parts: Parts) => Optimizer },
): Optimizer {
  const { name, match, make } = method
  const who = `memory.${name}`
  const takes = taker(who, match)
  const made = make({ ...requireParts(who, base), in8bits: base.in8bits && (() => wrapped(base.in8bits!(), method)) })
  const init: Optimizer['init'] = (params) => {
    const moved = new Set(made.moved(params))
    const named = Object.entries(namedTensors(params).parameters)
    if (!named.some(([path, p]) => moved.has(path) && takes(path, p))) {
      throw new SteepestError('ARGUMENT', {
        who,
        rule: 'it takes none of these parameters',
        got: named
          .slice(0, 8)
          .map(([path, p]) => `${path} [${p.shape.join(', ')}]`)
          .join(', '),
        fix: 'Say which with `match`; it takes matrices, and tensors of more axes as matrices [first, rest]',
      })
    }
    return made.init(params)
  }
  return sumLike({ ...made, init }, made)
}

/** @internal An optimizer that moves what `method` takes by it, and all other parameters as it did. */
export function wrapOptimizer(base: Optimizer, method: Method): Optimizer {
  const { name, match, hyper } = method
  const takes = taker(`memory.${name}`, match)
  return wrapped(base, {
    name,
    match,
    make: (parts) =>
      makeOptimizer({
        ...parts,
        who: `memory.${name}`,
        name: `${name}(${parts.name})`,
        hyper: { ...parts.hyper, ...hyper },
        mover(group) {
          const inner = parts.mover(group)
          const own = method.mover(innerOf(parts, group))
          return {
            init: (p, path) => (takes(path, p) ? own : inner).init(p, path),
            step: (o) => (takes(o.name, o.p) ? own : inner).step(o),
            small: (p, path) => (takes(path, p) ? own : inner).small?.(p, path),
          }
        },
      }),
  })
}
