import { checkOptions, SteepestError } from '../errors.js'
import { add, cast, div, less, mul, where } from '../ops/elementwise.js'
import { gather } from '../ops/indexing.js'
import { random } from '../ops/random.js'
import { cumsum } from '../ops/recurrence.js'
import { argmax, max } from '../ops/reduce.js'
import { expandDims, full, squeeze } from '../ops/shape.js'
import { softmax } from '../ops/softmax.js'
import { topK as likeliest } from '../ops/sort.js'
import { isFloat } from '../tensor/dtype.js'
import { showAval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/** How a token is chosen from its logits. */
export interface SampleOptions {
  /** Divides the logits, ≥ 0; 1 by default. 0 takes the likeliest token (the first of equal ones). */
  temperature?: number
  /** Choose among this many likeliest tokens; more than there are means all. */
  topK?: number
  /** Choose among the fewest likeliest tokens that together have at least this probability, in (0, 1]; 1 by default. */
  topP?: number
  /** Choose among tokens that have at least this share of the likeliest one's probability (Nguyen et al. 2024), in [0, 1]; 0 by default. */
  minP?: number
  /** int32 [2]; not needed at temperature 0. */
  key?: Tensor
  /** Stable numbers of the rows, int32 of the first axis: a row then draws the same in any batch. */
  ids?: Tensor
}

function requireOptions(who: string, { temperature = 1, topK, topP = 1, minP = 0 }: SampleOptions): void {
  if (!(temperature >= 0) || !Number.isFinite(temperature)) {
    throw new SteepestError('OPTION', { who, rule: '`temperature` must be 0 or more', got: String(temperature) })
  }
  if (topK !== undefined && (!Number.isInteger(topK) || topK < 1)) {
    throw new SteepestError('OPTION', { who, rule: '`topK` must be a whole number of 1 or more', got: String(topK) })
  }
  if (!(topP > 0 && topP <= 1))
    throw new SteepestError('OPTION', { who, rule: '`topP` must be in (0, 1]', got: String(topP) })
  if (!(minP >= 0 && minP <= 1))
    throw new SteepestError('OPTION', { who, rule: '`minP` must be in [0, 1]', got: String(minP) })
}

/**
 * Tokens drawn from logits, int32 [...]: with probability softmax(logits / temperature), among the `topK` likeliest, and of these (their
 * probabilities made to sum to 1 again) among those that `topP` keeps (Holtzman et al. 2020), and of these among those that `minP` keeps: the
 * order of Hugging Face. A token of −∞ is never drawn; a row of NaN ends the run.
 *
 * @param logits float [..., vocabulary]; bfloat16 is computed in float32
 */
export function sampleLogits(logits: Tensor, options: SampleOptions = {}): Tensor {
  const who = 'sampleLogits'
  checkOptions(who, options, ['temperature', 'topK', 'topP', 'minP', 'key', 'ids'])
  requireOptions(who, options)
  if (!isFloat(logits.dtype) || logits.rank === 0 || logits.shape[logits.rank - 1] === 0) {
    throw new SteepestError('SHAPE', { who, rule: 'logits must be float [..., vocabulary]', got: showAval(logits) })
  }
  const { temperature = 1, topK, topP = 1, minP = 0, key, ids } = options
  const wide = logits.dtype === 'bfloat16' ? cast(logits, 'float32') : logits
  if (temperature === 0) return argmax(wide, { axis: -1 })
  if (!key)
    throw new SteepestError('ARGUMENT', {
      who,
      rule: 'a choice by chance needs a key',
      fix: 'Give one, random.key(0), or temperature 0',
    })
  const scaled = temperature === 1 ? wide : div(wide, temperature)
  const vocabulary = scaled.shape[scaled.rank - 1]
  const among = Math.min(topK ?? vocabulary, vocabulary)
  const drawn = (values: Tensor) => random.categorical(key, minP > 0 ? likelyAs(values, minP) : values, { ids })
  if (among === vocabulary && topP === 1) return drawn(scaled)
  const { values, indices } = likeliest(scaled, among)
  const kept = topP === 1 ? values : nucleus(values, topP)
  return squeeze(gather(indices, expandDims(drawn(kept), -1), { axis: -1 }), -1)
}

const nothing = (like: Tensor): Tensor => full(like.shape, Number.NEGATIVE_INFINITY, like.dtype)

/** Logits, −∞ where the probability is below a share of the greatest. */
function likelyAs(logits: Tensor, share: number): Tensor {
  const least = add(max(logits, { axis: -1, keepDims: true }), Math.log(share))
  return where(less(logits, least), nothing(logits), logits)
}

/**
 * @internal Logits [B, V] with those of seen tokens (uint8 [B, V]) made less likely: divided by the penalty where positive, multiplied where
 * negative (Keskar et al. 2019).
 */
export function penalized(logits: Tensor, seen: Tensor, penalty: number): Tensor {
  if (!(penalty > 0 && penalty < Number.POSITIVE_INFINITY))
    throw new SteepestError('OPTION', {
      who: 'generate',
      rule: '`repetitionPenalty` must be above 0',
      got: String(penalty),
    })
  return where(seen, where(less(logits, 0), mul(logits, penalty), div(logits, penalty)), logits)
}

/** Logits in descending order, −∞ where those before have the probability already. */
function nucleus(values: Tensor, topP: number): Tensor {
  const before = cumsum(softmax(values, { axis: -1 }), { axis: -1, exclusive: true })
  return where(less(before, topP), values, nothing(values))
}
