import type { Tensor } from '../tensor/tensor.js'
import { arange } from './assemble.js'
import type { AttentionAttrs } from './attention.js'
import { type OpRow, statisticsOf, wide } from './batching.js'
import { defineOp, FLOATS, requireDtype } from './define.js'
import {
  add,
  cast,
  div,
  equal,
  exp,
  greaterEqual,
  isFinite,
  lessEqual,
  log,
  logicalAnd,
  mul,
  notEqual,
  sub,
  tanh,
  where,
} from './elementwise.js'
import { matmul } from './matmul.js'
import { max, sum } from './reduce.js'
import { broadcastTo, expandDims, reshape, swapAxes, transpose } from './shape.js'
import { stopGradient } from './control.js'
import type { DType } from '../tensor/dtype.js'

/** The optional operands of the attention rows, in the order of their attributes. */
export interface AttentionOperands {
  querySegments?: Tensor
  keySegments?: Tensor
  keyMask?: Tensor
  bias?: Tensor
  key?: Tensor
  ids?: Tensor
}

/** @internal Names the operands that begin at `at`. */
export function operandsOf(inputs: readonly Tensor[], at: number, attrs: AttentionAttrs): AttentionOperands {
  let next = at
  const take = (there: boolean) => (there ? inputs[next++] : undefined)
  return {
    querySegments: take(attrs.segments),
    keySegments: take(attrs.segments),
    keyMask: take(attrs.keyMask),
    bias: take(attrs.bias),
    key: take(attrs.dropout),
    ids: take(attrs.ids),
  }
}

type DropoutAttrs = {
  batch: number
  heads: number
  queries: number
  keys: number
  rate: number
  site: number
  examples: number
  ids: boolean
  dtype: DType
}

const dropoutRow: OpRow<DropoutAttrs> = defineOp<DropoutAttrs>({
  name: 'attentionDropout',
  kind: 'kernel',
  doc: 'The factors that dropout inside attention multiplies its weights with, [batch, heads, queries, keys].',
  attrs: {
    batch: 'int',
    heads: 'int',
    queries: 'int',
    keys: 'int',
    rate: 'float',
    site: 'int',
    examples: 'int',
    ids: 'bool',
    dtype: 'dtype',
  },
  infer: ([key], { batch, heads, queries, keys, dtype }) => {
    requireDtype('attentionDropout', key, ['int32'], 'key')
    requireDtype('attentionDropout', { shape: [], dtype }, FLOATS)
    return [{ shape: [batch, heads, queries, keys], dtype }]
  },
  vjp: () => [null, null],
  batch: ({ inputs: [key, ids], batched, size, attrs }) => {
    const each = batched[0]
      ? broadcastTo(reshape(key, [size, -1, 2]), [size, attrs.batch, 2])
      : key.rank === 2
        ? broadcastTo(key, [size, ...key.shape])
        : undefined
    const all = ids && (batched[1] ? ids : broadcastTo(ids, [size, ...ids.shape]))
    const given = [each ? reshape(each, [-1, 2]) : key, ...(all ? [reshape(all, [-1])] : [])]
    const [out] = dropoutRow(given, { ...attrs, batch: attrs.batch * size })
    return [reshape(out, [size, attrs.batch, ...out.shape.slice(1)])]
  },
})

/** Queries [B, T, H, D] as [B, Hk, share·T, D]: the heads that share a key one after the other. */
const byKeyHead = (x: Tensor, keyHeads: number): Tensor => {
  const [batch, time, heads, depth] = x.shape
  const split = reshape(x, [batch, time, keyHeads, heads / keyHeads, depth])
  return reshape(transpose(split, [0, 2, 3, 1, 4]), [batch, keyHeads, (heads / keyHeads) * time, depth])
}

/** The inverse of `byKeyHead`. */
const fromKeyHead = (x: Tensor, time: number, heads: number): Tensor => {
  const [batch, keyHeads, , depth] = x.shape
  const split = reshape(x, [batch, keyHeads, heads / keyHeads, time, depth])
  return reshape(transpose(split, [0, 3, 1, 2, 4]), [batch, time, heads, depth])
}

/** [B, H, T, S] as [B, Hk, share·T, S], and back. */
const grouped = (x: Tensor, keyHeads: number): Tensor =>
  reshape(x, [x.shape[0], keyHeads, (x.shape[1] / keyHeads) * x.shape[2], x.shape[3]])

const lastTwo = (x: Tensor): Tensor => swapAxes(x, -1, -2)
const headsFirst = (x: Tensor): Tensor => transpose(x, [0, 2, 1, 3])
const LAST = { axis: -1, keepDims: true } as const

/** Where a query sees a key, uint8 that broadcasts to [B, H, T, S]; undefined: everywhere. */
function visible(queries: number, keys: number, o: AttentionOperands, attrs: AttentionAttrs): Tensor | undefined {
  let seen: Tensor | undefined
  const also = (m: Tensor) => {
    seen = seen ? logicalAnd(seen, m) : m
  }
  const right = attrs.causal ? (attrs.windowRight < 0 ? 0 : Math.min(0, attrs.windowRight)) : attrs.windowRight
  const diagonal = reshape(arange(0, queries, { dtype: 'int32' }), [1, 1, queries, 1])
  const j = reshape(arange(0, keys, { dtype: 'int32' }), [1, 1, 1, keys])
  const offset = keys - queries
  if (right >= 0 || attrs.causal) also(lessEqual(j, add(diagonal, offset + right)))
  if (attrs.windowLeft >= 0) also(greaterEqual(j, add(diagonal, offset - attrs.windowLeft)))
  if (o.querySegments)
    also(equal(expandDims(expandDims(o.querySegments, 1), 3), expandDims(expandDims(o.keySegments!, 1), 2)))
  if (o.keyMask) also(expandDims(expandDims(notEqual(o.keyMask, 0), 1), 2))
  return seen
}

interface Weights {
  /** Softmax of the scores, [B, H, T, S], before dropout. */
  p: Tensor
  /** Factor of dropout. */
  kept?: Tensor
  /** Log-sum-exp of the scores, [B, H, T]. */
  lse: Tensor
  /** tanh(score / cap), where there is a cap. */
  bent?: Tensor
}

function weightsOf(q: Tensor, k: Tensor, o: AttentionOperands, attrs: AttentionAttrs): Weights {
  const [batch, queries, heads] = q.shape
  const [, keys, keyHeads] = k.shape
  const shape = [batch, heads, queries, keys]
  const product = reshape(matmul(byKeyHead(wide(q), keyHeads), lastTwo(headsFirst(wide(k)))), shape)
  let scores = mul(product, attrs.scale)
  let bent: Tensor | undefined
  if (attrs.softCap > 0) {
    bent = tanh(div(scores, attrs.softCap))
    scores = mul(bent, attrs.softCap)
  }
  if (o.bias) scores = add(scores, wide(o.bias))
  const seen = visible(queries, keys, o, attrs)
  if (seen) scores = where(seen, scores, -Infinity)
  // A row that sees nothing has the maximum -Infinity, and weights of zero.
  const top =
    keys > 0 ? stopGradient(max(scores, LAST)) : broadcastTo(mul(sum(scores, LAST), 0), [...shape.slice(0, 3), 1])
  const shift = where(isFinite(top), top, 0)
  const e = exp(sub(scores, shift))
  const total = sum(e, LAST)
  const p = div(e, where(equal(total, 0), 1, total))
  const lse = reshape(add(log(total), shift), shape.slice(0, 3))
  const kept = o.key
    ? dropoutRow([o.key, ...(o.ids ? [o.ids] : [])], {
        batch,
        heads,
        queries,
        keys,
        rate: attrs.rate,
        site: attrs.site,
        examples: attrs.examples,
        ids: attrs.ids,
        dtype: statisticsOf(q.dtype),
      })[0]
    : undefined
  return { p, kept, lse, bent }
}

/** @internal Attention and its log-sum-exp in primitive ops; holds the matrix of scores. */
export function defineAttention(inputs: readonly Tensor[], attrs: AttentionAttrs): Tensor[] {
  const [q, k, v] = inputs
  const w = weightsOf(q, k, operandsOf(inputs, 3, attrs), attrs)
  const p = w.kept ? mul(w.p, w.kept) : w.p
  const mixed = matmul(grouped(p, k.shape[2]), headsFirst(wide(v)))
  return [cast(fromKeyHead(mixed, q.shape[1], q.shape[2]), q.dtype), w.lse]
}

/**
 * @internal The gradients dq, dk, dv and that of the scores before the cap, in primitive ops. The weights are computed again from q and k,
 * so that the derivative of this sees that they depend on them. Inputs q, k, v, out, log-sum-exp, gradient of out, optional operands.
 */
export function defineGradients(
  inputs: readonly Tensor[],
  attrs: AttentionAttrs,
): { dq: Tensor; dk: Tensor; dv: Tensor; dscores: Tensor } {
  const [q, k, v, , , g] = inputs
  const [batch, queries, heads] = q.shape
  const [, keys, keyHeads] = k.shape
  const w = weightsOf(q, k, operandsOf(inputs, 6, attrs), attrs)
  const dout = byKeyHead(wide(g), keyHeads)
  const used = w.kept ? mul(w.p, w.kept) : w.p
  const dv = matmul(lastTwo(grouped(used, keyHeads)), dout)
  const through = reshape(matmul(dout, lastTwo(headsFirst(wide(v)))), [batch, heads, queries, keys])
  const dp = w.kept ? mul(through, w.kept) : through
  const dscores = mul(w.p, sub(dp, sum(mul(dp, w.p), LAST)))
  const bent = w.bent ? mul(dscores, sub(1, mul(w.bent, w.bent))) : dscores
  const ds = grouped(mul(bent, attrs.scale), keyHeads)
  return {
    dq: cast(fromKeyHead(matmul(ds, headsFirst(wide(k))), queries, heads), q.dtype),
    dk: cast(headsFirst(matmul(lastTwo(ds), byKeyHead(wide(q), keyHeads))), k.dtype),
    dv: cast(headsFirst(dv), v.dtype),
    dscores,
  }
}
