import { checkOptions, SteepestError } from '../errors.js'
import { type Graph, schedule as graphSchedule } from '../graph/graph.js'
import { substitute } from '../graph/rebuild.js'
import { defineOp } from '../ops/define.js'
import { add, cast, notEqual, where } from '../ops/elementwise.js'
import { sum } from '../ops/reduce.js'
import { barrier, broadcastTo, placeholder, reshape, zeros, zerosLike } from '../ops/shape.js'
import { isFloat } from '../tensor/dtype.js'
import { type Aval, sameShape, showAval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { backwardOrZeros } from './backward.js'
import { inTrace, trace } from './trace.js'
import { flatten } from './tree.js'
import { moveAxis, vmap } from './vmap.js'

type ScanAttrs = { body: Graph; consts: number; carries: number; length: number; reverse: boolean; keep: boolean }

type Row<A> = (inputs: readonly Tensor[], attrs: A) => Tensor[]

const avalOf = (t: Aval): Aval => ({ shape: t.shape, dtype: t.dtype })

/** A graph of the outputs of `f` on placeholders. */
function graphOf(avals: readonly Aval[], f: (inputs: Tensor[]) => readonly Tensor[]): Graph {
  const inputs = avals.map((a) => placeholder(avalOf(a)))
  return { inputs, outputs: inTrace(() => f(inputs)) }
}

const body =
  (graph: Graph) =>
  (...inputs: Tensor[]) => [...substitute(graph, inputs)]

/** Floating-point operations of a body that is run once. */
const flopsOf = (graph: Graph): number =>
  graphSchedule(graph.outputs).reduce(
    (n, { op, inputs, outputs, attrs }) => n + (op.flops?.(inputs, outputs, attrs) ?? 0),
    0,
  )

const scanRow: Row<ScanAttrs> = defineOp<ScanAttrs>({
  name: 'scan',
  kind: 'kernel',
  faults: true,
  doc: 'A body that is run once per slice of its inputs, handing a carry on.',
  attrs: { body: 'graph', consts: 'int', carries: 'int', length: 'int', reverse: 'bool', keep: 'bool' },
  flops: (_, __, { body, length }) => length * flopsOf(body),
  infer: (_, { body, carries, length, keep }) => {
    const stacked = (t: Aval): Aval => ({ shape: [length, ...t.shape], dtype: t.dtype })
    const out = body.outputs.map((t, i) => (i < carries ? avalOf(t) : stacked(t)))
    return keep ? [...out, ...body.outputs.slice(0, carries).map(stacked)] : out
  },
  vjp: ({ inputs, outputs, attrs, grads, needs }) => {
    const { body: graph, consts, carries, keep, length, reverse } = attrs
    const ys = graph.outputs.length - carries
    const kept = keep ? outputs.slice(carries + ys) : scanRow(inputs, { ...attrs, keep: true }).slice(carries + ys)
    const floatCarries = graph.outputs.slice(0, carries).map((t) => isFloat(t.dtype))
    const wanted = inputs.map((_, i) => i < consts && needs[i])
    const constInputs = inputs.slice(0, consts)
    const xs = inputs.slice(consts + carries)
    const gys = grads.slice(carries, carries + ys)
    // What the gradient's own derivative wants of the carry that each step got.
    const gkept = floatCarries.flatMap((float, i) => (float ? [keep ? (grads[carries + ys + i] ?? null) : null] : []))
    const gradCarry = graph.outputs
      .slice(0, carries)
      .flatMap((t, i) => (floatCarries[i] ? [grads[i] ?? zerosLike(t)] : []))
    const sums = constInputs.flatMap((t, i) => (wanted[i] ? [zeros(t.shape, t.dtype)] : []))
    const wantedXs = xs.map((t, i) => needs[consts + carries + i] && isFloat(t.dtype))
    const step = (
      constants: Tensor[],
      [gc, acc]: [Tensor[], Tensor[]],
      slice: { carry: Tensor[]; x: Tensor[]; gy: Tensor[]; gkept: Tensor[] },
    ) => {
      // Behind barriers, so that the inputs differ even where one tensor is given twice.
      const at = [...constants, ...slice.carry, ...slice.x].map(barrier)
      let c = 0
      let y = 0
      const cotangents = graph.outputs.map((_, i) =>
        i < carries ? (floatCarries[i] ? gc[c++] : null) : gys[i - carries] ? slice.gy[y++] : null,
      )
      const asked = at.filter((_, i) =>
        i < consts ? wanted[i] : i < consts + carries ? floatCarries[i - consts] : wantedXs[i - consts - carries],
      )
      const got = backwardOrZeros(substitute(graph, at), cotangents, asked)
      const nConst = acc.length
      const nCarry = gc.length
      let k = 0
      const onto = got.slice(nConst, nConst + nCarry).map((g, i) => (gkept[i] ? add(g, slice.gkept[k++]) : g))
      return {
        carry: [onto, acc.map((s, i) => add(s, got[i]))] as [Tensor[], Tensor[]],
        y: got.slice(nConst + nCarry),
      }
    }
    const given = {
      carry: [...kept],
      x: [...xs],
      gy: gys.flatMap((g) => (g ? [g] : [])),
      gkept: gkept.flatMap((g) => (g ? [g] : [])),
    }
    const { carry, ys: gxs } = scanWith(
      [...constInputs],
      step,
      [gradCarry, sums] as [Tensor[], Tensor[]],
      given,
      length,
      !reverse,
    )
    let c = 0
    let k = 0
    let x = 0
    return inputs.map((_, i) => {
      if (i < consts) return wanted[i] ? carry[1][c++] : null
      if (i < consts + carries) return floatCarries[i - consts] ? carry[0][k++] : null
      return wantedXs[i - consts - carries] ? (gxs as Tensor[])[x++] : null
    })
  },
  batch: ({ inputs, batched, size, attrs }) => {
    const { consts, carries, keep } = attrs
    const all = inputs.map((t, i) => {
      if (i < consts) return t
      if (i < consts + carries) return batched[i] ? t : broadcastTo(t, [size, ...t.shape])
      return batched[i] ? moveAxis(t, 0, 1) : t
    })
    const axes = inputs.map((_, i) => (batched[i] || (i >= consts && i < consts + carries) ? 0 : null))
    const avals = all.map((t, i) => (i < consts + carries ? t : { shape: t.shape.slice(1), dtype: t.dtype }))
    const mapped = graphOf(avals, (given) => vmap(body(attrs.body), { inAxes: axes })(...given))
    const out = scanRow(all, { ...attrs, body: mapped })
    const ys = attrs.body.outputs.length
    return out.map((t, i) => (i < carries || (i >= ys && !keep) ? t : moveAxis(t, 1, 0)))
  },
})

/** Scan with constants that are given, not captured. */
function scanWith<K, C, X, Y>(
  constants: K,
  f: (constants: K, carry: C, x: X) => { carry: C; y: Y },
  init: C,
  xs: X,
  length: number,
  reverse: boolean,
): { carry: C; ys: Y } {
  const flatK = flatten(constants)
  const flatC = flatten(init)
  const flatX = flatten(xs)
  const avals = [
    ...flatK.tensors,
    ...flatC.tensors,
    ...flatX.tensors.map((t) => ({ shape: t.shape.slice(1), dtype: t.dtype })),
  ]
  const traced = trace('scan', (k: K, c: C, x: X) => f(k, c, x), [constants, init, xs], avals)
  const { carry, y } = traced.out.unflatten(traced.graph.outputs)
  const outC = flatten(carry)
  const outY = flatten(y)
  outC.tensors.forEach((t, i) => {
    const was = flatC.tensors[i]
    if (was === undefined || !sameShape(t.shape, was.shape) || t.dtype !== was.dtype) {
      throw new SteepestError('SHAPE', {
        who: 'scan',
        rule: 'the carry that a step returns must have the shape and dtype of the one it got',
        got: was ? `${showAval(t)} for ${showAval(was)}` : `${outC.tensors.length} tensors for ${flatC.tensors.length}`,
      })
    }
  })
  if (outC.tensors.length !== flatC.tensors.length) {
    throw new SteepestError('ARGUMENT', {
      who: 'scan',
      rule: 'a step must return a carry of the structure that it got',
      got: `${outC.tensors.length} tensors for ${flatC.tensors.length}`,
    })
  }
  const n = flatK.tensors.length
  const own = traced.graph.inputs.slice(0, n + flatC.tensors.length + flatX.tensors.length)
  const captured = traced.graph.inputs.slice(own.length)
  const graph: Graph = {
    inputs: [...own.slice(0, n), ...captured, ...own.slice(n)],
    outputs: [...outC.tensors, ...outY.tensors],
  }
  const consts = n + captured.length
  const given = [...flatK.tensors, ...traced.captures, ...flatC.tensors, ...flatX.tensors]
  const out = scanRow(given, { body: graph, consts, carries: outC.tensors.length, length, reverse, keep: true })
  const nc = outC.tensors.length
  return { carry: flatC.unflatten(out.slice(0, nc)), ys: outY.unflatten(out.slice(nc, nc + outY.tensors.length)) as Y }
}

export interface ScanOptions {
  /** Number of steps; needed where `xs` has no tensors. */
  length?: number
  /** From the last slice to the first. */
  reverse?: boolean
}

/**
 * A loop that is one instruction: `f(carry, x)` is traced once and run for every slice of `xs` along axis 0, each step getting the carry of
 * the one before. Differentiable: the backward pass keeps the carries and computes the insides of a step again.
 *
 * @param xs a tree of tensors [length, …]; null for none (then `length` is needed)
 * @returns the last carry and the stacked `y` [length, …] of all steps
 */
export function scan<C, X, Y>(
  f: (carry: C, x: X) => { carry: C; y: Y },
  init: C,
  xs: X,
  options: ScanOptions = {},
): { carry: C; ys: Y } {
  checkOptions('scan', options, ['length', 'reverse'])
  const lengths = new Set(flatten(xs).tensors.map((t) => t.shape[0]))
  if (options.length !== undefined) lengths.add(options.length)
  const [length] = lengths
  if (lengths.size !== 1 || length === undefined || !Number.isSafeInteger(length) || length < 0) {
    throw new SteepestError('SHAPE', {
      who: 'scan',
      rule: 'all of `xs` must have one length along axis 0, or `length` must be given',
      got: lengths.size === 0 ? 'neither' : [...lengths].map(String).join(' and '),
    })
  }
  return scanWith([], (_, carry: C, x: X) => f(carry, x), init, xs, length, options.reverse ?? false)
}

/** The bodies of branches on common inputs: their arguments, then what each captured. */
function common(
  who: string,
  functions: readonly ((...args: readonly unknown[]) => unknown)[],
  args: readonly unknown[],
): { graphs: Graph[]; inputs: Tensor[]; outs: ReturnType<typeof flatten>[] } {
  const traced = functions.map((f) => trace(who, f, args))
  const flat = flatten(args)
  const captures = traced.map((t) => t.captures)
  const all = captures.flat()
  let before = 0
  const graphs = traced.map((t, n) => {
    const own = t.graph.inputs.slice(0, flat.tensors.length)
    const inputs = [...own, ...all.map((c) => placeholder(avalOf(c)))]
    captures[n].forEach((_, i) => (inputs[own.length + before + i] = t.graph.inputs[own.length + i]))
    before += captures[n].length
    return { inputs, outputs: t.graph.outputs }
  })
  return { graphs, inputs: [...flat.tensors, ...all], outs: traced.map((t) => t.out) }
}

type CondAttrs = { yes: Graph; no: Graph }

const condRow: Row<CondAttrs> = defineOp<CondAttrs>({
  name: 'cond',
  kind: 'kernel',
  faults: true,
  doc: 'One of two bodies, by a number.',
  attrs: { yes: 'graph', no: 'graph' },
  flops: (_, __, { yes, no }) => Math.max(flopsOf(yes), flopsOf(no)),
  infer: (_, { yes }) => yes.outputs.map(avalOf),
  vjp: ({ inputs: [pred, ...inputs], attrs, grads, needs }) => {
    const wanted = inputs.map((_, i) => needs[i + 1])
    const given = grads.flatMap((g) => (g ? [g] : []))
    const derivative = (graph: Graph): Graph =>
      graphOf([...inputs, ...given], (all) => {
        const at = all.slice(0, inputs.length).map(barrier)
        let k = inputs.length
        return backwardOrZeros(
          substitute(graph, at),
          grads.map((g) => (g ? all[k++] : null)),
          at.filter((_, i) => wanted[i]),
        )
      })
    const out = condRow([pred, ...inputs, ...given], { yes: derivative(attrs.yes), no: derivative(attrs.no) })
    let k = 0
    return [null, ...wanted.map((w) => (w ? out[k++] : null))]
  },
  batch: ({ inputs: [pred, ...inputs], batched, size, attrs }) => {
    const axes = inputs.map((_, i) => (batched[i + 1] ? 0 : null))
    const any = axes.includes(0)
    const run =
      (graph: Graph) =>
      (given: Tensor[]): Tensor[] =>
        any
          ? vmap(body(graph), { inAxes: axes })(...given)
          : body(graph)(...given).map((t) => broadcastTo(t, [size, ...t.shape]))
    if (!batched[0])
      return condRow([pred, ...inputs], { yes: graphOf(inputs, run(attrs.yes)), no: graphOf(inputs, run(attrs.no)) })
    const yes = run(attrs.yes)(inputs)
    const no = run(attrs.no)(inputs)
    return yes.map((t, i) => where(reshape(notEqual(pred, 0), [size, ...t.shape.slice(1).map(() => 1)]), t, no[i]))
  },
})

function requireScalar(who: string, t: Aval): void {
  if (t.shape.length !== 0)
    throw new SteepestError('SHAPE', { who, rule: 'the condition must be one number (a scalar)', got: showAval(t) })
}

/**
 * `yes(...operands)` where `predicate` (a scalar) is not zero, else `no(...operands)`; only the one that is taken is computed.
 * Both must give trees of the same shapes and dtypes. Differentiable.
 */
export function cond<A extends readonly unknown[], R>(
  predicate: Tensor,
  yes: (...operands: A) => R,
  no: (...operands: A) => R,
  ...operands: A
): R {
  requireScalar('cond', predicate)
  const { graphs, inputs, outs } = common('cond', [yes as never, no as never], operands)
  const [a, b] = graphs.map((g) => g.outputs.map((t) => showAval(t)).join(', '))
  if (a !== b)
    throw new SteepestError('SHAPE', {
      who: 'cond',
      rule: 'both branches must return the same shapes and dtypes',
      got: `${a} and ${b}`,
    })
  return outs[0].unflatten(condRow([predicate, ...inputs], { yes: graphs[0], no: graphs[1] })) as R
}

type WhileAttrs = { test: Graph; body: Graph; consts: number }

const whileRow: Row<WhileAttrs> = defineOp<WhileAttrs>({
  name: 'whileLoop',
  kind: 'kernel',
  faults: true,
  doc: 'A body that is run again as long as a test of its state holds.',
  attrs: { test: 'graph', body: 'graph', consts: 'int' },
  // How often it runs is not known: one round counts.
  flops: (_, __, { test, body }) => flopsOf(test) + flopsOf(body),
  infer: (_, { body }) => body.outputs.map(avalOf),
  vjp: 'how often a while loop runs is known only when it has run; use scan, which keeps what its backward pass needs',
  batch: ({ inputs, batched, size, attrs }) => {
    const { consts } = attrs
    const all = inputs.map((t, i) => (i < consts || batched[i] ? t : broadcastTo(t, [size, ...t.shape])))
    const axes = all.map((_, i) => (i < consts && !batched[i] ? null : 0))
    const tests = (given: Tensor[]) => notEqual(vmap(body(attrs.test), { inAxes: axes })(...given)[0], 0)
    const test = graphOf(all, (given) => [sum(cast(tests(given), 'float32'))])
    const next = graphOf(all, (given) => {
      const holds = tests(given)
      const after = vmap(body(attrs.body), { inAxes: axes })(...given)
      return after.map((t, i) => where(reshape(holds, [size, ...t.shape.slice(1).map(() => 1)]), t, given[consts + i]))
    })
    return whileRow(all, { test, body: next, consts })
  },
})

function holding(t: Tensor): Tensor {
  requireScalar('whileLoop', t)
  return notEqual(t, 0)
}

/**
 * Runs `next` on the state as long as `test` of it gives a scalar that is not zero. Both are traced once. The number of rounds is decided
 * natively, so nothing is read back; there is no reverse derivative (use `scan`).
 */
export function whileLoop<S>(test: (state: S) => Tensor, next: (state: S) => S, init: S): S {
  const { graphs, inputs, outs } = common(
    'whileLoop',
    [((state: S) => holding(test(state))) as never, next as never],
    [init],
  )
  const flat = flatten(init)
  const was = flat.tensors.map(showAval).join(', ')
  const is = graphs[1].outputs.map((t) => showAval(t)).join(', ')
  if (was !== is)
    throw new SteepestError('SHAPE', {
      who: 'whileLoop',
      rule: 'the state must keep its shapes and dtypes',
      got: `${is} for ${was}`,
    })
  const n = flat.tensors.length
  const swap = <T>(list: readonly T[]): T[] => [...list.slice(n), ...list.slice(0, n)]
  const [a, b] = graphs.map((g) => ({ inputs: swap(g.inputs), outputs: g.outputs }))
  return outs[1].unflatten(whileRow(swap(inputs), { test: a, body: b, consts: inputs.length - n })) as S
}

export { revise } from './revise.js'
