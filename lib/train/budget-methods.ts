import { badam, galore, sampled } from '../memory/index.js'
import type { Setup } from './budget-setup.js'

/** What a run may do to fit into its memory. */
export const ALLOWED = ['recompute', 'states8bit', 'lowrank', 'sampled', 'blocks'] as const
export type Allowed = (typeof ALLOWED)[number]

/** A method that changes the numbers of a run: taken only where the user allows it. */
export interface MemoryMethod {
  readonly name: Exclude<Allowed, 'recompute'>
  /** For people: `8-bit optimizer states`. */
  readonly label: string
  /** The run with the method; undefined where it does not apply. */
  apply(setup: Setup): Setup | undefined
}

/** The methods that there are, the mildest first. */
export const METHODS: readonly MemoryMethod[] = [
  {
    name: 'states8bit',
    label: 'optimizer states in 8 bits',
    apply(setup) {
      const small = setup.optimizer.in8bits?.()
      // A wrapper may show what only the optimizer inside can do.
      return small?.name === setup.optimizer.name ? { ...setup, optimizer: small } : undefined
    },
  },
  {
    name: 'sampled',
    label: 'weight gradients from 30% of the rows (sampled)',
    apply: (setup) => ({ ...setup, model: sampled(setup.model, { ratio: 0.3 }) }),
  },
  {
    name: 'lowrank',
    label: 'low-rank states (GaLore)',
    apply: (setup) => (setup.optimizer.step ? undefined : { ...setup, optimizer: galore(setup.optimizer) }),
  },
  {
    name: 'blocks',
    label: 'one block at a time (BAdam)',
    apply: (setup) => (setup.optimizer.step ? undefined : { ...setup, optimizer: badam(setup.optimizer) }),
  },
]

/** All choices of some of the methods, those of fewer first, then the milder. */
export function combinations(methods: readonly MemoryMethod[]): readonly (readonly MemoryMethod[])[] {
  const all: MemoryMethod[][] = [[]]
  for (const method of methods) all.push(...all.map((chosen) => [...chosen, method]))
  const strength = (chosen: readonly MemoryMethod[]) => chosen.reduce((n, m) => n + 2 ** methods.indexOf(m), 0)
  return all.sort((a, b) => a.length - b.length || strength(a) - strength(b))
}
