import type { Parts } from '../optim/base.js'

/**
 * What becomes of a rule's weight decay when the rule runs on small tensors: it belongs to the whole weight. `coupled` decay is added to the gradient
 * before it is projected; decoupled decay shrinks the weight `before` or `after` the step. `own`: the steps of this rule depend on the
 * weights, so it gets the weights as they are in the small space and decays them there.
 */
export interface Decay {
  readonly kind: 'coupled' | 'before' | 'after' | 'own'
  readonly rate: number
}

const COUPLED = new Set(['sgd', 'adam', 'adagrad', 'diffgrad'])
const BEFORE = new Set(['adamw', 'lion', 'lionK', 'signSgd', 'muon', 'soap', 'sophia'])
const AFTER = new Set(['adamwHf'])

/** How the rule of an optimizer decays the weights of a group. */
export function decayOf({ name, hyper, options }: Parts, group: Readonly<Record<string, unknown>>): Decay {
  const option = (key: string): unknown =>
    group[key] ?? (options as Readonly<Record<string, unknown>>)[key] ?? hyper[key]
  const rate = Number(option('weightDecay') ?? 0)
  if (AFTER.has(name)) return { kind: 'after', rate }
  if (BEFORE.has(name)) return { kind: 'before', rate }
  if (COUPLED.has(name)) return { kind: 'coupled', rate }
  if (name === 'adabelief' && option('fixedDecay') !== true)
    return { kind: option('weightDecouple') === false ? 'coupled' : 'before', rate }
  return { kind: 'own', rate }
}
