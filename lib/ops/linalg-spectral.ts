import { checkOptions, SteepestError } from '../errors.js'
import { sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { concat, eye, tril } from './assemble.js'
import { defineOp, type VjpContext } from './define.js'
import { add, div, mul, neg, reciprocal, sub } from './elementwise.js'
import { dual, foldLower, requireMatrix, requireSquare, symmetricPart } from './linalg-shared.js'
import { triangularSolveRow } from './linalg-solve.js'
import { matmul } from './matmul.js'
import { expandDims, slice } from './shape.js'

const column = (x: Tensor): Tensor => expandDims(x, -1)
const row = (x: Tensor): Tensor => expandDims(x, -2)
const plus = (a: Tensor | null, b: Tensor | null): Tensor | null => (a && b ? add(a, b) : (a ?? b))

// 1 / (x_j − x_i) off the diagonal, 0 on it.
function gaps(x: Tensor): Tensor {
  const one = eye(x.shape[x.rank - 1], { dtype: x.dtype })
  return mul(sub(1, one), reciprocal(add(sub(row(x), column(x)), one)))
}

const diagonal = (x: Tensor): Tensor => mul(eye(x.shape[x.rank - 1], { dtype: x.dtype }), column(x))

// Walter and Lehmann, "Algorithmic differentiation of linear algebra functions with application in optimum experimental design"
// (2010), for m ≥ n: (Q̄ + Q copyltu(R R̄ᵀ − Q̄ᵀ Q)) R⁻ᵀ.
function qrTall(q: Tensor, r: Tensor, gq: Tensor | null, gr: Tensor | null): Tensor {
  const m = plus(gr && matmul(r, dual(gr)), gq && neg(matmul(dual(gq), q)))!
  const whole = matmul(q, add(tril(m), dual(tril(m, -1))))
  const right = gq ? add(gq, whole) : whole
  return dual(triangularSolveRow([r, dual(right)], { lower: false, transpose: false, unit: false })[0])
}

function qrGradient({
  inputs: [a],
  outputs: [q, r],
  grads: [gq, gr],
  attrs,
}: VjpContext<{ complete: boolean }>): Tensor[] {
  const [m, n] = a.shape.slice(-2)
  if (attrs.complete && m > n) {
    throw new SteepestError('NO_DERIVATIVE', {
      who: 'qr',
      rule: 'the complete form has no derivative where there are more rows than columns: the added columns of Q are not unique',
      got: `${m} rows, ${n} columns`,
      fix: "Use mode 'reduced'",
    })
  }
  if (m >= n) return [qrTall(q, r, gq, gr)]
  // A = [A1 A2] with A1 square: Q and R1 come from A1, R2 = Qᵀ A2.
  const part = (x: Tensor, from: number, to: number) => slice(x, [...x.shape.slice(0, -1).map(() => null), [from, to]])
  const gr2 = gr && part(gr, m, n)
  const gq1 = plus(gq, gr2 && matmul(part(a, m, n), dual(gr2)))
  const g1 = qrTall(q, part(r, 0, m), gq1, gr && part(gr, 0, m))
  return [concat([g1, gr2 ? matmul(q, gr2) : mul(part(a, m, n), 0)], { axis: -1 })]
}

const qrRow = defineOp<{ complete: boolean }>({
  name: 'qr',
  kind: 'kernel',
  doc: 'Q with orthonormal columns and upper triangular R, Q R = A [..., m, n], by Householder reflections; R may have negative diagonal elements. A must have full rank for the derivative.',
  attrs: { complete: 'bool' },
  infer: ([a], { complete }) => {
    requireMatrix('qr', a)
    const [m, n] = a.shape.slice(-2)
    const k = complete ? m : Math.min(m, n)
    const lead = a.shape.slice(0, -2)
    return [
      { shape: [...lead, m, k], dtype: a.dtype },
      { shape: [...lead, k, n], dtype: a.dtype },
    ]
  },
  vjp: qrGradient,
  batch: ({ inputs, attrs }): Tensor[] => qrRow(inputs, attrs),
  flops: ([a]) => 4 * sizeOf(a.shape) * Math.min(...a.shape.slice(-2)),
})

const eighRow = defineOp({
  name: 'eigh',
  kind: 'kernel',
  faults: true,
  doc: 'Ascending eigenvalues and eigenvectors (columns) of symmetric A [..., n, n], from its lower triangle; fault 3 and NaN where it does not converge. The derivative of the vectors needs distinct eigenvalues.',
  attrs: {},
  infer: ([a]) => {
    requireSquare('eigh', a)
    return [
      { shape: a.shape.slice(0, -1), dtype: a.dtype },
      { shape: a.shape, dtype: a.dtype },
    ]
  },
  vjp: ({ outputs: [w, v], grads: [gw, gv] }): (Tensor | null)[] => {
    const inner = plus(gw && diagonal(gw), gv && mul(gaps(w), matmul(dual(v), gv)))
    return [foldLower(matmul(matmul(v, inner!), dual(v)))]
  },
  batch: ({ inputs }): Tensor[] => eighRow(inputs, {}),
  flops: ([a]) => 9 * sizeOf(a.shape) * a.shape[a.shape.length - 1],
})

// Townsend, "Differentiating the singular value decomposition" (2016).
function svdGradient(
  u: Tensor,
  s: Tensor,
  vh: Tensor,
  gu: Tensor | null,
  gs: Tensor | null,
  gvh: Tensor | null,
): Tensor {
  const v = dual(vh)
  const gv = gvh && dual(gvh)
  const f = gu || gv ? gaps(mul(s, s)) : null
  const turn = (x: Tensor, g: Tensor) => {
    const p = matmul(dual(x), g)
    return mul(f!, sub(p, dual(p)))
  }
  let inner = gs && diagonal(gs)
  if (gu) inner = plus(inner, mul(turn(u, gu), row(s)))
  if (gv) inner = plus(inner, mul(column(s), turn(v, gv)))
  let out = matmul(matmul(u, inner!), vh)
  // What leaves the spaces of U and V; nothing does where they are square.
  if (gu && u.shape[u.rank - 2] > u.shape[u.rank - 1]) {
    const outside = sub(gu, matmul(u, matmul(dual(u), gu)))
    out = add(out, matmul(div(outside, row(s)), vh))
  }
  if (gv && v.shape[v.rank - 2] > v.shape[v.rank - 1]) {
    const outside = sub(gv, matmul(v, matmul(vh, gv)))
    out = add(out, matmul(div(u, row(s)), dual(outside)))
  }
  return out
}

const svdRow = defineOp({
  name: 'svd',
  kind: 'kernel',
  faults: true,
  doc: 'Thin singular value decomposition A [..., m, n] = U diag(s) Vh, s descending; fault 3 and NaN where it does not converge. The derivative of U and Vh needs distinct, non-zero singular values.',
  attrs: {},
  infer: ([a]) => {
    requireMatrix('svd', a)
    const lead = a.shape.slice(0, -2)
    const [m, n] = a.shape.slice(-2)
    const k = Math.min(m, n)
    return [[m, k], [k], [k, n]].map((shape) => ({ shape: [...lead, ...shape], dtype: a.dtype }))
  },
  vjp: ({ outputs: [u, s, vh], grads: [gu, gs, gvh] }): (Tensor | null)[] => [svdGradient(u, s, vh, gu, gs, gvh)],
  batch: ({ inputs }): Tensor[] => svdRow(inputs, {}),
  flops: ([a]) => 14 * sizeOf(a.shape) * Math.min(...a.shape.slice(-2)),
})

/**
 * Q R = A by Householder reflections, as LAPACK gives it: diagonal elements of R may be negative.
 *
 * @param a `[..., m, n]`, float32 or float64
 * @param options `mode` 'reduced' (default): Q `[..., m, k]`, R `[..., k, n]`, k = min(m, n); 'complete': Q `[..., m, m]`, R `[..., m, n]`
 * @throws SteepestError NO_DERIVATIVE when the complete form of a tall matrix is differentiated
 */
export function qr(a: Tensor, options: { mode?: 'reduced' | 'complete' } = {}): { q: Tensor; r: Tensor } {
  checkOptions('qr', options, ['mode'])
  const mode = options.mode ?? 'reduced'
  if (mode !== 'reduced' && mode !== 'complete') {
    throw new SteepestError('OPTION', { who: 'qr', rule: "mode must be 'reduced' or 'complete'", got: `${mode}` })
  }
  const [q, r] = qrRow([a], { complete: mode === 'complete' })
  return { q, r }
}

/**
 * Eigenvalues `[..., n]` (ascending) and orthonormal eigenvectors `[..., n, n]` (columns) of a symmetric matrix. The sign of a vector is
 * LAPACK's choice. Derivatives of the vectors need distinct eigenvalues; those of the values do not.
 *
 * @param a `[..., n, n]`, float32 or float64
 * @param options `symmetrize` (default true) takes (A + Aᵀ)/2, so that gradients are symmetric; false reads the lower triangle only
 */
export function eigh(a: Tensor, options: { symmetrize?: boolean } = {}): { values: Tensor; vectors: Tensor } {
  checkOptions('eigh', options, ['symmetrize'])
  requireSquare('eigh', a)
  const [values, vectors] = eighRow([options.symmetrize === false ? a : symmetricPart(a)], {})
  return { values, vectors }
}

/**
 * Thin singular value decomposition A = U diag(s) Vh with s descending: U `[..., m, k]`, s `[..., k]`, Vh `[..., k, n]`, k = min(m, n).
 * Derivatives of U and Vh need distinct, non-zero singular values; those of s alone do not.
 *
 * @param a `[..., m, n]`, float32 or float64
 */
export function svd(a: Tensor): { u: Tensor; s: Tensor; vh: Tensor } {
  const [u, s, vh] = svdRow([a], {})
  return { u, s, vh }
}
