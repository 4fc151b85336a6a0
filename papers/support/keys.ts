import { random, type Tensor } from 'steepest'

/** What a seed is used for. */
const USES = ['data', 'order', 'steps', 'other'] as const

/**
 * A key for one use of a seed. Equal keys give equal numbers, whatever is drawn from them: were data and their order drawn from one key, the
 * order would be sorted by what the data are made of; a model draws its weights from the keys that `nn.Keys` folds from the seed itself.
 */
export const keyOf = (seed: number, use: (typeof USES)[number]): Tensor =>
  random.foldIn(random.key(seed), 1_000_000 + USES.indexOf(use))
