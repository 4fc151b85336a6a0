import { checkOptions, SteepestError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import { type Aval, normalizeAxis, sameShape, type Shape, showAval, sizeOf } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { cast, less, log, neg } from './elementwise.js'
import { take } from './indexing.js'
import { broadcastTo, expandDims, scalar, swapAxes, tensor } from './shape.js'
import { argsort } from './sort.js'

const KINDS = ['bits', 'uniform', 'normal', 'exponential', 'integer'] as const

type RandomAttrs = {
  kind: (typeof KINDS)[number]
  shape: number[]
  dtype: DType
  a: number
  b: number
  site: number
  ids: boolean
}

const CONSTANT = 'random numbers do not depend on an input in a differentiable way'

/** The axes of a stack of keys. */
function keyAxes(who: string, key: Aval): Shape {
  if (key.dtype !== 'int32' || key.shape.length < 1 || key.shape[key.shape.length - 1] !== 2) {
    throw new SteepestError('SHAPE', {
      who,
      rule: 'a key must be int32 [2]',
      got: showAval(key),
      fix: 'Make one: random.key(0)',
    })
  }
  return key.shape.slice(0, -1)
}

function requireIds(who: string, ids: Aval, lead: Shape, shape: Shape): void {
  if (ids.dtype !== 'int32' || shape.length === 0 || !sameShape(ids.shape, [...lead, shape[0]])) {
    throw new SteepestError('SHAPE', {
      who,
      rule: '`ids` must be int32, one per example (the first axis)',
      got: `${showAval(ids)} for ${shape.length ? shape[0] : 'no'} examples`,
    })
  }
}

/** All inputs with the new axis: a key that is not mapped serves every slice, as it would in a loop. */
const widen = <A>({ inputs, batched, size }: BatchContext<A>): Tensor[] =>
  inputs.map((t, i) => (batched[i] ? t : broadcastTo(expandDims(t, 0), [size, ...t.shape])))

const randomRow = defineOp<RandomAttrs>({
  name: 'random',
  kind: 'kernel',
  doc: 'Random numbers (Philox 4x32-10) for each key [..., 2]: a function of key, site, example id and element only.',
  attrs: { kind: KINDS, shape: 'ints', dtype: 'dtype', a: 'float', b: 'float', site: 'int', ids: 'bool' },
  infer: ([key, ids], { shape, dtype }) => {
    const lead = keyAxes('random', key)
    if (ids) requireIds('random', ids, lead, shape)
    return [{ shape: [...lead, ...shape], dtype }]
  },
  vjp: CONSTANT,
  batch: (ctx): Tensor[] => randomRow(widen(ctx), ctx.attrs),
  flops: (_, [out]) => 20 * sizeOf(out.shape),
})

const splitRow = defineOp<{ count: number }>({
  name: 'splitKey',
  kind: 'kernel',
  doc: 'For each key [..., 2], `count` keys [..., count, 2] whose numbers are independent of its own and of each other.',
  attrs: { count: 'int' },
  infer: ([key], { count }) => [{ shape: [...keyAxes('splitKey', key), count, 2], dtype: 'int32' }],
  vjp: CONSTANT,
  batch: (ctx): Tensor[] => splitRow(ctx.inputs, ctx.attrs),
})

const foldRow = defineOp({
  name: 'foldKey',
  kind: 'kernel',
  doc: 'For each key [..., 2] and int32 [...], another key.',
  attrs: {},
  infer: ([key, data]) => {
    const lead = keyAxes('foldKey', key)
    if (data.dtype !== 'int32' || !sameShape(data.shape, lead)) {
      throw new SteepestError('SHAPE', {
        who: 'foldKey',
        rule: 'what is folded in must be int32, one per key',
        got: `${showAval(data)} for ${showAval(key)}`,
      })
    }
    return [{ shape: key.shape, dtype: 'int32' }]
  },
  vjp: CONSTANT,
  batch: (ctx): Tensor[] => foldRow(widen(ctx), {}),
})

const dropoutRow = defineOp<{ p: number; site: number; ids: boolean }>({
  name: 'dropout',
  kind: 'kernel',
  doc: 'Zero with probability p, else x / (1 − p); x [keys..., ...], key [keys..., 2], optional ids [keys..., examples].',
  attrs: { p: 'float', site: 'int', ids: 'bool' },
  infer: ([x, key, ids]) => {
    const who = 'dropout'
    requireDtype(who, x, FLOATS)
    const lead = keyAxes(who, key)
    if (!sameShape(lead, x.shape.slice(0, lead.length))) {
      throw new SteepestError('SHAPE', {
        who,
        rule: 'the axes of the keys must lead those of the input',
        got: `${showAval(x)} and ${showAval(key)}`,
      })
    }
    if (ids) requireIds(who, ids, lead, x.shape.slice(lead.length))
    return [{ shape: x.shape, dtype: x.dtype }]
  },
  // The mask depends on the key and the place only: drawn again, it is the same.
  vjp: ({ inputs: [, ...rest], grads: [g], attrs }): (Tensor | null)[] => [
    dropoutRow([g!, ...rest], attrs)[0],
    ...rest.map(() => null),
  ],
  batch: (ctx): Tensor[] => dropoutRow(widen(ctx), ctx.attrs),
  flops: (_, [out]) => 20 * sizeOf(out.shape),
  inplace: [[0, 0]],
})

const categoricalRow = defineOp<{ site: number; ids: boolean }>({
  name: 'categorical',
  kind: 'kernel',
  faults: true,
  doc: 'For each row of logits [keys..., ..., n] an int32 drawn with probability softmax(row); fault 1 where no logit is above −∞.',
  attrs: { site: 'int', ids: 'bool' },
  infer: ([logits, key, ids]) => {
    const who = 'categorical'
    requireDtype(who, logits, FLOATS, 'logits')
    const lead = keyAxes(who, key)
    const rank = logits.shape.length
    if (rank <= lead.length || logits.shape[rank - 1] === 0 || !sameShape(lead, logits.shape.slice(0, lead.length))) {
      throw new SteepestError('SHAPE', {
        who,
        rule: 'logits need an axis of one or more classes',
        got: `${showAval(logits)} and ${showAval(key)}`,
      })
    }
    if (ids) requireIds(who, ids, lead, logits.shape.slice(lead.length, -1))
    return [{ shape: logits.shape.slice(0, -1), dtype: 'int32' }]
  },
  vjp: 'its outputs are indices, which are constant almost everywhere',
  batch: (ctx): Tensor[] => categoricalRow(widen(ctx), ctx.attrs),
  flops: ([logits]) => 40 * sizeOf(logits.shape),
})

/** How draws of one key are told apart. */
export interface DrawOptions {
  /** Tells this draw from others of the same key; 0 by default. */
  site?: number
  /** Stable numbers of the examples (the first axis), int32: an example then draws the same in any batch. */
  ids?: Tensor
}

/** What kind of numbers, beside how they are told apart. */
export interface FloatDrawOptions extends DrawOptions {
  /** A float dtype; float32 by default. */
  dtype?: DType
}

function draw(
  who: string,
  key: Tensor,
  shape: Shape,
  options: FloatDrawOptions,
  known: readonly string[],
  rest: Pick<RandomAttrs, 'kind' | 'a' | 'b'>,
): Tensor {
  checkOptions(who, options, [...known, 'site', 'ids'])
  const integer = rest.kind === 'bits' || rest.kind === 'integer'
  const dtype = integer ? 'int32' : (options.dtype ?? 'float32')
  if (!integer) requireDtype(who, { shape, dtype }, FLOATS, 'dtype')
  const { site = 0, ids } = options
  const inputs = ids ? [key, ids] : [key]
  return randomRow(inputs, { ...rest, shape: [...shape], dtype, site, ids: ids !== undefined })[0]
}

/** A key from a seed: a whole number in [0, 2^53). */
function key(seed: number): Tensor {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new SteepestError('ARGUMENT', {
      who: 'random.key',
      rule: 'a seed must be a whole number in [0, 2^53)',
      got: String(seed),
    })
  }
  return tensor([seed | 0, Math.floor(seed / 2 ** 32) | 0], { dtype: 'int32' })
}

/** `count` keys [count, 2] that are independent of `key` and of each other. */
function split(key: Tensor, count = 2): Tensor {
  if (!Number.isInteger(count) || count < 0) {
    throw new SteepestError('ARGUMENT', {
      who: 'random.split',
      rule: 'count must be a whole number of 0 or more',
      got: String(count),
    })
  }
  return splitRow([key], { count })[0]
}

/** Another key for each whole number (or int32 scalar, such as the step): the same for the same number. */
function foldIn(key: Tensor, data: number | Tensor): Tensor {
  if (data instanceof Tensor) return foldRow([key, data], {})[0]
  if (!Number.isInteger(data) || data < -(2 ** 31) || data >= 2 ** 32) {
    throw new SteepestError('ARGUMENT', {
      who: 'random.foldIn',
      rule: 'the number must be whole and fit 32 bits',
      got: String(data),
    })
  }
  return foldRow([key, broadcastTo(scalar(data | 0, 'int32'), key.shape.slice(0, -1))], {})[0]
}

/** Uniform in [min, max), by default [0, 1): 24 (float64: 53) random bits. */
function uniform(key: Tensor, shape: Shape, options: FloatDrawOptions & { min?: number; max?: number } = {}): Tensor {
  const { min = 0, max = 1 } = options
  if (!(max >= min) || !Number.isFinite(max - min)) {
    throw new SteepestError('OPTION', {
      who: 'random.uniform',
      rule: '`max` must not be below `min`, and both finite',
      got: `[${min}, ${max})`,
    })
  }
  return draw('random.uniform', key, shape, options, ['dtype', 'min', 'max'], { kind: 'uniform', a: min, b: max })
}

/** Normal with the given mean (0) and standard deviation (1). */
function normal(key: Tensor, shape: Shape, options: FloatDrawOptions & { mean?: number; std?: number } = {}): Tensor {
  const { mean = 0, std = 1 } = options
  if (!(std >= 0) || !Number.isFinite(mean) || !Number.isFinite(std)) {
    throw new SteepestError('OPTION', {
      who: 'random.normal',
      rule: '`std` must be 0 or more, and both finite',
      got: `mean ${mean}, std ${std}`,
    })
  }
  return draw('random.normal', key, shape, options, ['dtype', 'mean', 'std'], { kind: 'normal', a: mean, b: std })
}

/** Exponential with mean 1. */
const exponential = (key: Tensor, shape: Shape, options: FloatDrawOptions = {}): Tensor =>
  draw('random.exponential', key, shape, options, ['dtype'], { kind: 'exponential', a: 0, b: 0 })

/** Standard Gumbel: −log of an exponential. */
const gumbel = (key: Tensor, shape: Shape, options: FloatDrawOptions = {}): Tensor =>
  neg(log(draw('random.gumbel', key, shape, options, ['dtype'], { kind: 'exponential', a: 0, b: 0 })))

/** Uniform 32-bit words, int32. */
const bits = (key: Tensor, shape: Shape, options: DrawOptions = {}): Tensor =>
  draw('random.bits', key, shape, options, [], { kind: 'bits', a: 0, b: 0 })

/** Uniform whole numbers in [min, max), int32. */
function integers(key: Tensor, shape: Shape, min: number, max: number, options: DrawOptions = {}): Tensor {
  if (!Number.isInteger(min) || !Number.isInteger(max) || min < -(2 ** 31) || max > 2 ** 31 || max <= min) {
    throw new SteepestError('ARGUMENT', {
      who: 'random.integers',
      rule: 'min < max must be whole numbers in [−2^31, 2^31]',
      got: `[${min}, ${max})`,
    })
  }
  return draw('random.integers', key, shape, options, [], { kind: 'integer', a: min, b: max })
}

/**
 * Coin throws, uint8: 1 with probability `p`.
 *
 * @param p a number, or a tensor that broadcasts to `shape`
 * @param shape by default that of `p`
 */
function bernoulli(key: Tensor, p: number | Tensor = 0.5, shape?: Shape, options: DrawOptions = {}): Tensor {
  const target = shape ?? (p instanceof Tensor ? p.shape : [])
  const wide = p instanceof Tensor && p.dtype === 'float64'
  const u = draw('random.bernoulli', key, target, { ...options, dtype: wide ? 'float64' : 'float32' }, ['dtype'], {
    kind: 'uniform',
    a: 0,
    b: 1,
  })
  return less(u, p instanceof Tensor && p.dtype === 'bfloat16' ? cast(p, 'float32') : p)
}

/**
 * Indices (int32) drawn with probability softmax(logits) along an axis, which disappears. −∞ is never drawn; a row with nothing above
 * −∞ (or only NaN) ends the run as a non-finite number does.
 */
function categorical(key: Tensor, logits: Tensor, options: DrawOptions & { axis?: number } = {}): Tensor {
  const who = 'random.categorical'
  checkOptions(who, options, ['axis', 'site', 'ids'])
  if (logits.rank === 0)
    throw new SteepestError('SHAPE', { who, rule: 'logits need at least one axis', got: showAval(logits) })
  const { site = 0, ids } = options
  const axis = normalizeAxis(who, options.axis ?? -1, logits.rank)
  if (axis !== logits.rank - 1) {
    // The last axis takes the place of the one that is drawn along; it comes back behind.
    const moved = swapAxes(logits, axis, -1)
    const drawn = categoricalRow(ids ? [moved, key, ids] : [moved, key], { site, ids: ids !== undefined })[0]
    return moveTo(drawn, axis)
  }
  return categoricalRow(ids ? [logits, key, ids] : [logits, key], { site, ids: ids !== undefined })[0]
}

/** Axis `from` last. */
function moveTo(x: Tensor, from: number): Tensor {
  let y = x
  for (let i = from; i + 1 < x.rank; i++) y = swapAxes(y, i, i + 1)
  return y
}

/** The numbers 0 to n − 1 in a random order, int32 [n]; all orders are equally likely (but for ties of 53-bit numbers). */
function permutation(key: Tensor, n: number, options: DrawOptions = {}): Tensor {
  if (!Number.isInteger(n) || n < 0 || n >= 2 ** 31) {
    throw new SteepestError('ARGUMENT', {
      who: 'random.permutation',
      rule: 'the length must be a whole number in [0, 2^31)',
      got: String(n),
    })
  }
  return argsort(
    draw('random.permutation', key, [n], { ...options, dtype: 'float64' }, ['dtype'], { kind: 'uniform', a: 0, b: 1 }),
  )
}

/** The slices of an axis (0 by default) in a random order. */
function shuffle(key: Tensor, x: Tensor, options: DrawOptions & { axis?: number } = {}): Tensor {
  const { axis = 0, ...rest } = options
  const at = normalizeAxis('random.shuffle', axis, x.rank)
  return take(x, permutation(key, x.shape[at], rest), { axis: at })
}

/**
 * Random numbers from explicit keys, int32 [2]. Equal keys give equal numbers, on any number of threads and in any transform, whatever
 * is drawn; two draws of one key need two sites, or new keys from `split` and `foldIn`. A stack of keys [..., 2] draws for each of
 * them: its axes come first.
 */
export const random = {
  key,
  split,
  foldIn,
  uniform,
  normal,
  exponential,
  gumbel,
  bits,
  integers,
  bernoulli,
  categorical,
  permutation,
  shuffle,
}

/** How dropout drops. */
export interface DropoutOptions extends DrawOptions {
  /** Probability of zero, in [0, 1]. */
  p: number
  key: Tensor
}

/**
 * Each element of `x` zero with probability `p`, else scaled by 1/(1−p) (Srivastava et al. 2014). The mask is a function of key, site,
 * example id and place: the gradient draws it again instead of keeping it.
 */
export function dropout(x: Tensor, options: DropoutOptions): Tensor {
  const who = 'dropout'
  checkOptions(who, options, ['p', 'key', 'ids', 'site'])
  const { p, key: k, ids, site = 0 } = options
  if (!(p >= 0 && p <= 1)) throw new SteepestError('OPTION', { who, rule: '`p` must be in [0, 1]', got: String(p) })
  return p === 0 ? x : dropoutRow(ids ? [x, k, ids] : [x, k], { p, site, ids: ids !== undefined })[0]
}
