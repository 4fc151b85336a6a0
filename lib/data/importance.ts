import { checkOptions, SteepestError } from '../errors.js'
import { random } from '../ops/random.js'

/** Options of `importance`. */
export interface ImportanceOptions {
  /**
   * Whether what was not observed between two draws counts as 0 from then on, as in the authors' code: at a share near 1 it is hardly ever drawn
   * again, and has a large weight when it is. Default false: it keeps its score, or, if it never had one, the mean of all.
   */
  forget?: boolean
  /** Seed of the draws. Default 0. */
  seed?: number
}

/** Numbers that were drawn. */
export interface Drawn {
  /** Which of the n, with replacement. */
  readonly ids: Int32Array
  /** 1 / (n · p) of each: what its loss is multiplied by for the mean over draws to be the mean over all. */
  readonly weights: Float32Array
}

const WHO = 'data.importance'
/** The score of what has not been observed yet. */
const NEVER = -1

/**
 * Draws examples (or paths, or anything that is numbered from 0) in proportion to scores, which are learned on the way: the variance of a weighted
 * gradient is least where an example is drawn in proportion to the norm of its own. With `share` τ the probabilities are
 * p = τ · score / Σ scores + (1 − τ) / n.
 *
 * A score that costs nothing more is the norm of the gradient at the logits, |softmax(z) − onehot(y)|.
 * Source: Lu et al., "PA&DA", CVPR 2023, arXiv 2302.14772, equations 5 to 9. Its code leaves out the weights, and is biased towards what is hard.
 *
 * @example
 * const sampler = data.importance(n)
 * const { ids, weights } = await sampler.draw(n, epoch / epochs)
 * // … a batch after the other, losses times weights; their scores:
 * sampler.observe(ids, scores)
 */
export class Importance {
  private readonly scores: Float64Array
  private readonly next: Float64Array
  private readonly seen: Uint8Array
  private draws = 0

  /** @internal */
  constructor(
    readonly n: number,
    private readonly seed: number,
    private readonly forget: boolean,
  ) {
    this.scores = new Float64Array(n).fill(NEVER)
    this.next = new Float64Array(n)
    this.seen = new Uint8Array(n)
  }

  /**
   * How likely each is to be drawn.
   * @param share of the scores in it, in [0, 1]. At 1 what has the score 0 is never drawn
   */
  probabilities(share: number): Float64Array {
    if (!(share >= 0 && share <= 1))
      throw new SteepestError('ARGUMENT', { who: WHO, rule: '`share` must be in [0, 1]', got: String(share) })
    const known = this.scores.filter((s) => s !== NEVER)
    const mean = known.length > 0 ? known.reduce((a, b) => a + b, 0) / known.length : 1
    const scores = this.scores.map((s) => (s === NEVER ? mean : s))
    const total = scores.reduce((a, b) => a + b, 0)
    return scores.map((s) => (total > 0 ? (share * s) / total : share / this.n) + (1 - share) / this.n)
  }

  /** What was observed since the last draw becomes scores, then `count` numbers are drawn. */
  async draw(count: number, share: number): Promise<Drawn> {
    if (!Number.isSafeInteger(count) || count < 0)
      throw new SteepestError('ARGUMENT', {
        who: WHO,
        rule: '`count` must be a whole number of 0 or more',
        got: String(count),
      })
    if (this.seen.includes(1)) {
      this.next.forEach((s, i) => {
        if (this.seen[i] || this.forget) this.scores[i] = s
      })
      this.next.fill(0)
      this.seen.fill(0)
    }
    const p = this.probabilities(share)
    const ends = new Float64Array(this.n)
    p.reduce((sum, x, i) => (ends[i] = sum + x), 0)
    const key = random.foldIn(random.key(this.seed), this.draws++)
    const at = await random.uniform(key, [count], { max: ends[this.n - 1], dtype: 'float64' }).read()
    const ids = Int32Array.from(at, (u) => firstAbove(ends, Number(u)))
    return { ids, weights: Float32Array.from(ids, (i) => 1 / (this.n * p[i])) }
  }

  /** Scores of some of the numbers, not negative. One that comes again before the next draw counts as the mean of what it was and what it is. */
  observe(ids: ArrayLike<number>, scores: ArrayLike<number>): void {
    for (let j = 0; j < ids.length; j++) {
      const [i, score] = [ids[j], scores[j]]
      if (!(Number.isInteger(i) && i >= 0 && i < this.n) || !(score >= 0 && score < Infinity))
        throw new SteepestError('ARGUMENT', {
          who: WHO,
          rule: `numbers must be in [0, ${this.n}) and scores finite, 0 or more`,
          got: `${i} with ${score}`,
        })
      this.next[i] = this.seen[i] ? (this.next[i] + score) / 2 : score
      this.seen[i] = 1
    }
  }

  /** What it has learned, as plain JSON, for a checkpoint. */
  state(): unknown {
    return { n: this.n, draws: this.draws, scores: [...this.scores], next: [...this.next], seen: [...this.seen] }
  }

  /** @throws SteepestError CHECKPOINT where it is of another number of examples */
  restore(state: unknown): void {
    const from = state as { n: number; draws: number; scores: number[]; next: number[]; seen: number[] }
    if (from?.n !== this.n)
      throw new SteepestError('CHECKPOINT', {
        who: WHO,
        rule: 'scores go on with the examples that they were begun with',
        got: `${from?.n}, not ${this.n}`,
      })
    this.draws = from.draws
    this.scores.set(from.scores)
    this.next.set(from.next)
    this.seen.set(from.seen)
  }
}

/** The first place whose end is above a number. */
function firstAbove(ends: Float64Array, x: number): number {
  let [low, high] = [0, ends.length - 1]
  while (low < high) {
    const middle = (low + high) >> 1
    if (ends[middle] > x) high = middle
    else low = middle + 1
  }
  return low
}

/** Draws of the numbers 0 to n − 1 in proportion to scores that are learned on the way; see {@link Importance}. */
export function importance(n: number, options: ImportanceOptions = {}): Importance {
  checkOptions(WHO, options, ['seed', 'forget'])
  const { seed = 0, forget = false } = options
  for (const [name, value, least] of [
    ['n', n, 1],
    ['seed', seed, 0],
  ] as const)
    if (!Number.isSafeInteger(value) || value < least)
      throw new SteepestError('OPTION', {
        who: WHO,
        rule: `\`${name}\` must be a whole number of ${least} or more`,
        got: String(value),
      })
  return new Importance(n, seed, forget)
}
