import { evaluate, settled } from '../graph/evaluate.js'
import { apolloMini, badam, fira, frugal, galore, type Lora, lora, sampled } from '../memory/index.js'
import { namedTensors } from '../nn/module.js'
import type { Optimizer } from '../optim/index.js'
import type { Setup } from './budget-setup.js'
import type { Trainable } from './trainer.js'

/** What a run may do to fit into its memory. */
export const ALLOWED = ['recompute', 'states8bit', 'activations', 'sampled', 'lowrank', 'blocks'] as const
export type Allowed = (typeof ALLOWED)[number]

/** A way to change the numbers of a run for its memory: taken only where the user allows its kind. */
export interface MemoryMethod {
  readonly kind: Exclude<Allowed, 'recompute'>
  /** For people: `8-bit optimizer states`. */
  readonly label: string
  /** How far it is from the exact run, beside the others; of those that fit, the least is taken. */
  readonly strength: number
  /** Rows that are kept, where it samples. */
  readonly ratio?: number
  /** The run with the method; undefined where it does not apply. */
  apply(setup: Setup): Setup | undefined
}

/** @internal Weight gradients from a part of the rows. */
export const sampling = (ratio: number, strength: number): MemoryMethod => ({
  kind: 'sampled',
  label: `weight gradients from ${Math.round(100 * ratio)}% of the rows (sampled)`,
  strength,
  ratio,
  apply: (setup) => ({ ...setup, model: sampled(setup.model, { ratio }) }),
})

/** A quarter of the shorter side of most of the model's matrices: a space with the density that FRUGAL has by default. */
function rankFor(model: Trainable): number {
  const sides = Object.values(namedTensors(model).parameters)
    .filter((p) => p.rank === 2)
    .map((p) => Math.min(...p.shape))
    .sort((a, b) => a - b)
  return Math.max(1, (sides[sides.length >> 1] ?? 4) >> 2)
}

/** The learning rate was chosen for the optimizer alone: steps in a small space are then as long as its own. */
const inside = (
  label: string,
  strength: number,
  wrap: (optimizer: Optimizer, rank: number) => Optimizer,
  kind: 'lowrank' | 'blocks' = 'lowrank',
): MemoryMethod => ({
  kind,
  label,
  strength,
  apply: (setup) =>
    setup.optimizer.step ? undefined : { ...setup, optimizer: wrap(setup.optimizer, rankFor(setup.model)) },
})

/** Adds what was learned to the model's own weights, one matrix at a time. */
async function absorb(adapted: Lora<Trainable>): Promise<void> {
  const { parameters } = namedTensors(adapted.merged())
  const own = namedTensors(adapted.base).parameters
  for (const name of Object.keys(adapted.additions)) {
    evaluate([parameters[name]])
    await settled([parameters[name]])
    own[name].storage = parameters[name].storage
  }
}

const additions: MemoryMethod = {
  kind: 'lowrank',
  label: 'additions of rank 8 alone are trained (LoRA)',
  strength: 12,
  apply(setup) {
    // A file would hold the additions, and not the model that the user has.
    if (setup.writes) return undefined
    const model = lora(setup.model, { rank: 8 }) as Lora<Trainable>
    const finish = async () => {
      await absorb(model)
      await setup.finish?.()
    }
    return { ...setup, model, finish }
  },
}

const packed = (activations: 'bfloat16' | '8bit', label: string, strength: number): MemoryMethod => ({
  kind: 'activations',
  label,
  strength,
  apply: (setup) => (setup.activations ? undefined : { ...setup, activations }),
})

/** The ways that there are, the mildest first. */
export const METHODS: readonly MemoryMethod[] = [
  {
    kind: 'states8bit',
    label: 'optimizer states in 8 bits',
    strength: 1,
    apply(setup) {
      const small = setup.optimizer.in8bits?.()
      // A wrapper may show what only the optimizer inside can do.
      return small?.name === setup.optimizer.name ? { ...setup, optimizer: small } : undefined
    },
  },
  packed('bfloat16', 'activations kept in bfloat16', 2),
  sampling(0.5, 3),
  packed('8bit', 'activations kept in 8 bits', 4),
  inside('a quarter of each matrix has states (FRUGAL)', 5, (o) => frugal(o)),
  sampling(0.3, 6),
  inside('states of low rank (Fira)', 7, (o, rank) => fira(o, { rank, alpha: 1 })),
  inside('states of low rank (GaLore)', 8, (o, rank) => galore(o, { rank, scale: 1, accumulation: 'small' })),
  sampling(0.1, 9),
  inside('states of rank 1 (APOLLO-mini)', 10, (o) => apolloMini(o)),
  inside('one block at a time (BAdam)', 11, (o) => badam(o), 'blocks'),
  additions,
]

/** Small spaces and blocks both say which weights have states. */
const clash = (a: MemoryMethod, b: MemoryMethod): boolean =>
  a.kind === b.kind || [a, b].every((m) => m.kind === 'lowrank' || m.kind === 'blocks')

const strengthOf = (chosen: readonly MemoryMethod[]): number => chosen.reduce((n, m) => n + m.strength, 0)

/** All choices of methods that go together, those of fewer first, then the milder. */
export function combinations(methods: readonly MemoryMethod[]): readonly (readonly MemoryMethod[])[] {
  const all: MemoryMethod[][] = [[]]
  for (const method of methods) {
    const before = all.filter((chosen) => !chosen.some((m) => clash(m, method)))
    all.push(...before.map((chosen) => [...chosen, method]))
  }
  return all.sort((a, b) => a.length - b.length || strengthOf(a) - strengthOf(b))
}
