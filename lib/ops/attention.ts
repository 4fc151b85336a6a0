import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, showShape } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { pad } from './assemble.js'
import { defineAttention, defineGradients } from './attention-define.js'
import { type OpRow, statisticsOf } from './batching.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { cast } from './elementwise.js'
import { sum } from './reduce.js'
import { broadcastTo, reshape, slice } from './shape.js'

export { linearAttention, type LinearAttentionOptions } from './attention-linear.js'
export { rotary, type RotaryOptions } from './rotary.js'

/** @internal */
export type AttentionAttrs = {
  causal: boolean
  segments: boolean
  keyMask: boolean
  bias: boolean
  dropout: boolean
  ids: boolean
  windowLeft: number
  windowRight: number
  scale: number
  softCap: number
  rate: number
  site: number
  examples: number
}

const WHO = 'attention'
const ATTRS = {
  causal: 'bool',
  segments: 'bool',
  keyMask: 'bool',
  bias: 'bool',
  dropout: 'bool',
  ids: 'bool',
  windowLeft: 'int',
  windowRight: 'int',
  scale: 'float',
  softCap: 'float',
  rate: 'float',
  site: 'int',
  examples: 'int',
} as const

/** Operands that have no batch axis of their own or are a single one for all: what stands before them under vmap. */
const flops = (products: number) => (inputs: readonly Aval[], _: readonly Aval[], attrs: AttentionAttrs) => {
  const [q, k] = inputs
  const [batch, queries, heads, depth] = q.shape
  const keys = k.shape[1]
  const full = queries * keys
  const seen = attrs.causal && queries === keys ? (full + queries) / 2 : full
  const band =
    attrs.windowLeft >= 0 && attrs.windowRight >= 0 ? queries * (attrs.windowLeft + attrs.windowRight + 1) : full
  return products * 2 * batch * heads * depth * Math.min(seen, band)
}

/** Folds a new batch axis into that of q, k and v; every operand as the row wants it. */
function foldBatch(ctx: BatchContext<AttentionAttrs>, leading: number): { inputs: Tensor[]; attrs: AttentionAttrs } {
  const { size, batched, attrs } = ctx
  // A concrete operand of the unmapped function has its batch axis first, or none.
  const inner = (i: number) => ctx.inputs[i].shape.slice(batched[i] ? 1 : 0)
  const batch = inner(0)[0]
  const spread = (i: number): Tensor => {
    const t = ctx.inputs[i]
    const own = inner(i)
    const whole = batched[i] ? t : broadcastTo(t, [size, ...own])
    return reshape(whole, [size * own[0], ...own.slice(1)])
  }
  const at = leading + 2 * Number(attrs.segments) + Number(attrs.keyMask)
  const inputs = ctx.inputs.map((t, i) => {
    if (attrs.bias && i === at) {
      const own = inner(i)
      if (own[0] === batch && batch !== 1) return spread(i)
      if (!batched[i]) return t
      return reshape(broadcastTo(t, [size, batch, ...own.slice(1)]), [size * batch, ...own.slice(1)])
    }
    if (attrs.dropout && i === at + Number(attrs.bias)) {
      if (!batched[i]) return inner(i).length === 1 ? t : spread(i)
      return reshape(broadcastTo(reshape(t, [size, -1, 2]), [size, batch, 2]), [-1, 2])
    }
    return spread(i)
  })
  return { inputs, attrs }
}

const unfold = (t: Tensor, size: number): Tensor => reshape(t, [size, t.shape[0] / size, ...t.shape.slice(1)])

const attentionRow: OpRow<AttentionAttrs> = defineOp<AttentionAttrs>({
  name: 'attention',
  kind: 'kernel',
  doc: 'softmax(scale q·k + bias)·v over [batch, time, heads, depth], without the matrix of scores; also gives the log-sum-exp of each row.',
  attrs: ATTRS,
  strided: [0, 1, 2],
  infer: ([q]) => [
    { shape: q.shape, dtype: q.dtype },
    { shape: [q.shape[0], q.shape[2], q.shape[1]], dtype: statisticsOf(q.dtype) },
  ],
  vjp: ({ inputs, outputs, grads: [g], needs, attrs }) => {
    if (!g) return inputs.map(() => null)
    const [q, k, v, ...rest] = inputs
    const all = [q, k, v, outputs[0], outputs[1], g, ...rest]
    const given: (Tensor | null)[] = inputs.map(() => null)
    if (needs[0] || needs[1] || needs[2]) {
      const gradients = backwardRow(all, attrs)
      for (let i = 0; i < 3; i++) if (needs[i]) given[i] = gradients[i]
    }
    const at = 3 + 2 * Number(attrs.segments) + Number(attrs.keyMask)
    if (attrs.bias && needs[at]) given[at] = biasBackwardRow(all, attrs)[0]
    return given
  },
  batch: (ctx) => {
    const { inputs, attrs } = foldBatch(ctx, 3)
    return attentionRow(inputs, attrs).map((t) => unfold(t, ctx.size))
  },
  define: defineAttention,
  flops: flops(2),
})

const backwardRow: OpRow<AttentionAttrs> = defineOp<AttentionAttrs>({
  name: 'attentionBackward',
  kind: 'kernel',
  doc: 'Gradients of attention for q, k and v, from q, k, v, output, log-sum-exp and the gradient of the output.',
  attrs: ATTRS,
  strided: [0, 1, 2, 5],
  infer: ([q, k, v]) => [q, k, v].map(({ shape, dtype }) => ({ shape, dtype })),
  vjp: 'by its definition',
  batch: (ctx) => {
    const { inputs, attrs } = foldBatch(ctx, 6)
    return backwardRow(inputs, attrs).map((t) => unfold(t, ctx.size))
  },
  define: (inputs, attrs) => {
    const { dq, dk, dv } = defineGradients(inputs, attrs)
    return [dq, dk, dv]
  },
  flops: flops(5),
})

const biasOf = <T>(inputs: readonly T[], attrs: AttentionAttrs): T =>
  inputs[6 + 2 * Number(attrs.segments) + Number(attrs.keyMask)]

const biasBackwardRow: OpRow<AttentionAttrs> = defineOp<AttentionAttrs>({
  name: 'attentionBiasBackward',
  kind: 'kernel',
  doc: 'Gradient of the additive bias of attention, in the shape of the bias.',
  attrs: ATTRS,
  strided: [0, 1, 2, 5],
  infer: (inputs, attrs) => {
    const { shape, dtype } = biasOf(inputs, attrs)
    return [{ shape, dtype }]
  },
  vjp: 'by its definition',
  // Every example has a gradient of its own, so a bias without the new axis gets it before the axes are folded.
  batch: (ctx) => {
    const at = 6 + 2 * Number(ctx.attrs.segments) + Number(ctx.attrs.keyMask)
    const bias = ctx.inputs[at]
    const own = bias.shape.slice(ctx.batched[at] ? 1 : 0)
    const inputs = ctx.inputs.map((t, i) => (i === at && !ctx.batched[i] ? broadcastTo(t, [ctx.size, ...t.shape]) : t))
    const folded = foldBatch({ ...ctx, inputs, batched: ctx.batched.map((b, i) => b || i === at) }, 6)
    const given = unfold(biasBackwardRow(folded.inputs, folded.attrs)[0], ctx.size)
    return [own[0] === given.shape[1] ? given : sum(given, { axis: 1, keepDims: true })]
  },
  define: (inputs, attrs) => {
    const { shape, dtype } = biasOf(inputs, attrs)
    const { dscores } = defineGradients(inputs, attrs)
    const axes = [0, 1].filter((i) => shape[i] === 1 && dscores.shape[i] !== 1)
    return [cast(axes.length ? sum(dscores, { axis: axes, keepDims: true }) : dscores, dtype)]
  },
  flops: flops(2),
})

/** What `attention` may be told. */
export interface AttentionOptions {
  /** A query sees the keys up to its own place; with S keys and T queries the last query has the place of the last key. */
  causal?: boolean
  /** A query sees this many keys before its own place and this many after; null: no limit. */
  window?: readonly [left: number | null, right: number | null]
  /** Factor of the products of query and key; 1/√depth by default. */
  scale?: number
  /** Scores become cap·tanh(score / cap) before bias and mask (Gemma 2); none by default. */
  softCap?: number
  /** Numbers of the documents that positions belong to, int32 [B, T], or those of queries [B, T] and of keys [B, S]: attention stays within one. */
  segments?: Tensor | readonly [queries: Tensor, keys: Tensor]
  /** 0 where a key is not to be seen, uint8 [B, S]. */
  keyMask?: Tensor
  /** Added to the scores, [B or 1, H or 1, T, S]; has a gradient. float32 is allowed for bfloat16 queries. */
  bias?: Tensor
  /** Probability that a weight becomes zero; the others are divided by 1 − dropout. Needs `key`. */
  dropout?: number
  /** Random key, int32 [2], or one per example [B, 2]. */
  key?: Tensor
  /** Tells this draw from others with the same key. */
  site?: number
  /** Stable numbers of the examples, int32 [B]: an example then draws the same in any batch. */
  ids?: Tensor
}

const KNOWN = ['causal', 'window', 'scale', 'softCap', 'segments', 'keyMask', 'bias', 'dropout', 'key', 'site', 'ids']

function want(what: string, t: Aval, shapes: readonly (readonly number[])[], dtypes: readonly Aval['dtype'][]): void {
  if (!shapes.some((s) => sameShape(s, t.shape))) {
    throw new SteepestError('SHAPE', {
      who: WHO,
      rule: `\`${what}\` must have the shape ${shapes.map(showShape).join(' or ')}`,
      got: showAval(t),
    })
  }
  requireDtype(WHO, t, dtypes, `\`${what}\``)
}

function checkOperands(q: Tensor, k: Tensor, v: Tensor): void {
  requireDtype(WHO, q, FLOATS, 'queries')
  const fits =
    q.rank === 4 &&
    k.rank === 4 &&
    v.rank === 4 &&
    sameShape(k.shape.slice(0, 3), v.shape.slice(0, 3)) &&
    k.shape[0] === q.shape[0] &&
    k.shape[3] === q.shape[3] &&
    k.shape[2] > 0 &&
    q.shape[2] % k.shape[2] === 0
  if (!fits) {
    throw new SteepestError('SHAPE', {
      who: WHO,
      rule: 'q must be [B, T, H, D], k [B, S, G, D] and v [B, S, G, E] with G dividing H',
      got: [q, k, v].map((t) => showShape(t.shape)).join(', '),
    })
  }
  if (k.dtype !== q.dtype || v.dtype !== q.dtype) {
    throw new SteepestError('DTYPE', {
      who: WHO,
      rule: 'q, k and v must have one dtype',
      got: [q, k, v].map((t) => t.dtype).join(', '),
      fix: 'Use cast',
    })
  }
}

const limit = (n: number | null | undefined, what: string): number => {
  if (n === null || n === undefined) return -1
  if (!Number.isInteger(n) || n < 0)
    throw new SteepestError('OPTION', {
      who: WHO,
      rule: `\`${what}\` must be whole numbers of 0 or more, or null`,
      got: String(n),
    })
  return n
}

/** Zeros at the end of the last axis: they add nothing to a product, and what is mixed of them is cut off. */
const filled = (t: Tensor, width: number): Tensor =>
  t.shape[3] === width
    ? t
    : pad(t, [
        [0, 0],
        [0, 0],
        [0, 0],
        [0, width - t.shape[3]],
      ])

const pairOf = (segments: AttentionOptions['segments']): readonly Tensor[] =>
  segments === undefined ? [] : segments instanceof Tensor ? [segments, segments] : segments

/**
 * Attention (Vaswani et al., "Attention is all you need", 2017) as one op that never holds the T × S matrix of scores
 * (Dao, "FlashAttention-2", 2023): q [B, T, H, D], k [B, S, G, D] and v [B, S, G, E] where G divides H (grouped heads), to [B, T, H, E].
 * Where E is not D, the narrower ones are filled up with zeros, a copy of them. float32, bfloat16 (computed in float32) or float64.
 * A query that sees no key gives zeros.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  checkOptions(WHO, options, KNOWN)
  checkOperands(q, k, v)
  const [batch, queries, heads, depth] = q.shape
  const keys = k.shape[1]
  const { causal = false, window, softCap = 0, keyMask, bias, dropout = 0, key, site = 0, ids } = options
  const scale = options.scale ?? 1 / Math.sqrt(Math.max(1, depth))
  if (!(softCap >= 0 && softCap < Infinity))
    throw new SteepestError('OPTION', {
      who: WHO,
      rule: '`softCap` must be a positive number, or 0 for none',
      got: String(softCap),
    })
  if (!(dropout >= 0 && dropout < 1))
    throw new SteepestError('OPTION', { who: WHO, rule: '`dropout` must be in [0, 1)', got: String(dropout) })
  if (dropout > 0 && !key)
    throw new SteepestError('ARGUMENT', { who: WHO, rule: 'dropout needs a `key`', fix: 'Give one: random.key(seed)' })
  const segments = pairOf(options.segments)
  segments.forEach((t, i) => want('segments', t, [[batch, i ? keys : queries]], ['int32']))
  if (keyMask) want('keyMask', keyMask, [[batch, keys]], ['uint8'])
  if (bias) {
    const shapes = [batch, 1].flatMap((b) => [heads, 1].map((h) => [b, h, queries, keys]))
    want('bias', bias, shapes, q.dtype === 'bfloat16' ? ['bfloat16', 'float32'] : [q.dtype])
  }
  const drops = dropout > 0 && key !== undefined
  if (drops) want('key', key, [[2], [batch, 2]], ['int32'])
  if (drops && ids) want('ids', ids, [[batch]], ['int32'])
  const optional = [...segments, keyMask, bias, ...(drops ? [key, ids] : [])].filter((t) => t !== undefined)
  const width = Math.max(depth, v.shape[3])
  const [y] = attentionRow([...[q, k, v].map((t) => filled(t, width)), ...optional], {
    causal,
    segments: segments.length > 0,
    keyMask: keyMask !== undefined,
    bias: bias !== undefined,
    dropout: drops,
    ids: drops && ids !== undefined,
    windowLeft: limit(window?.[0], 'window'),
    windowRight: limit(window?.[1], 'window'),
    scale,
    softCap,
    rate: drops ? dropout : 0,
    site,
    examples: Math.max(1, batch),
  })
  return slice(y, [null, null, null, [0, v.shape[3]]])
}
