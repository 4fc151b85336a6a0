import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { arange } from './assemble.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { add, greaterEqual, less, logicalAnd, mul, sub, where } from './elementwise.js'
import { broadcastTo, expandDims, full, ones, reshape, transpose } from './shape.js'
import { searchsorted } from './sort.js'

const bad = (who: string, rule: string, ...got: Aval[]): SteepestError =>
  new SteepestError('SHAPE', { who, rule, got: got.map(showAval).join(', ') })

function requireEdges(who: string, rows: Aval, columns: Aval): number {
  requireDtype(who, rows, ['int32'], 'rows')
  requireDtype(who, columns, ['int32'], 'columns')
  if (rows.shape.length !== 1 || !sameShape(rows.shape, columns.shape)) {
    throw bad(who, 'row and column indices must be of shape [entries]', rows, columns)
  }
  return rows.shape[0]
}

// With its own indices, each example becomes a block on the diagonal of one larger matrix. Entries that count for nothing stay so.
function onDiagonal(index: Tensor, length: number): Tensor {
  const size = index.shape[0]
  const start = mul(expandDims(arange(size, { dtype: 'int32' }), -1), length)
  const valid = logicalAnd(greaterEqual(index, 0), less(index, length))
  return reshape(where(valid, add(index, start), full(index.shape, -1, 'int32')), [index.size])
}

const widen = <A>({ inputs, batched, size }: BatchContext<A>): Tensor[] =>
  inputs.map((x, i) => (batched[i] ? x : broadcastTo(expandDims(x, 0), [size, ...x.shape])))

const spmmRow = defineOp<{ size: number }>({
  name: 'spmm',
  kind: 'kernel',
  doc: 'Sparse times dense: y[rows[e]] += values[e] · dense[columns[e]], y [size, n]; an entry with an index out of range counts for nothing. Summed in the order of the entries.',
  attrs: { size: 'int' },
  infer: ([rows, columns, values, dense], { size }) => {
    const who = 'spmm'
    const entries = requireEdges(who, rows, columns)
    requireDtype(who, dense, FLOATS, 'dense')
    if (!sameShape(values.shape, [entries])) throw bad(who, `values must be of shape [${entries}]`, values)
    if (values.dtype !== dense.dtype)
      throw new SteepestError('DTYPE', {
        who,
        rule: 'values and dense must have one dtype',
        got: `${values.dtype} and ${dense.dtype}`,
      })
    if (dense.shape.length !== 2) throw bad(who, 'dense must be of shape [columns, n]', dense)
    if (!Number.isInteger(size) || size < 0 || size >= 2 ** 31) {
      throw new SteepestError('ARGUMENT', {
        who,
        rule: 'the number of rows must be a whole number in [0, 2^31)',
        got: `${size}`,
      })
    }
    return [{ shape: [size, dense.shape[1]], dtype: dense.dtype }]
  },
  vjp: ({ inputs: [rows, columns, values, dense], grads: [g], needs }): (Tensor | null)[] => [
    null,
    null,
    needs[2] ? sddmmRow([rows, columns, g!, dense], {})[0] : null,
    needs[3] ? spmmRow([columns, rows, values, g!], { size: dense.shape[0] })[0] : null,
  ],
  batch: (ctx): Tensor[] => {
    const { inputs, batched, size, attrs } = ctx
    if (!batched[0] && !batched[1] && !batched[2]) {
      // One matrix for all: the examples lie side by side.
      const [, c, n] = inputs[3].shape
      const wide = reshape(transpose(inputs[3], [1, 0, 2]), [c, size * n])
      const y = spmmRow([inputs[0], inputs[1], inputs[2], wide], attrs)[0]
      return [transpose(reshape(y, [attrs.size, size, n]), [1, 0, 2])]
    }
    const [rows, columns, values, dense] = widen(ctx)
    const [, c, n] = dense.shape
    const flat = [
      onDiagonal(rows, attrs.size),
      onDiagonal(columns, c),
      reshape(values, [values.size]),
      reshape(dense, [size * c, n]),
    ]
    return [reshape(spmmRow(flat, { size: size * attrs.size })[0], [size, attrs.size, n])]
  },
  flops: ([rows, , , dense]) => 2 * sizeOf(rows.shape) * dense.shape[1],
})

const sddmmRow = defineOp({
  name: 'sddmm',
  kind: 'kernel',
  doc: 'Products of rows at the entries of a sparse matrix: y[e] = Σ a[rows[e]] · b[columns[e]]; 0 where an index is out of range.',
  attrs: {},
  infer: ([rows, columns, a, b]) => {
    const who = 'sddmm'
    const entries = requireEdges(who, rows, columns)
    requireDtype(who, a, FLOATS, 'a')
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[1] !== b.shape[1] || a.dtype !== b.dtype) {
      throw bad(who, 'operands must be of shape [rows, n] and [columns, n] and of one dtype', a, b)
    }
    return [{ shape: [entries], dtype: a.dtype }]
  },
  vjp: ({ inputs: [rows, columns, a, b], grads: [g], needs }): (Tensor | null)[] => [
    null,
    null,
    needs[2] ? spmmRow([rows, columns, g!, b], { size: a.shape[0] })[0] : null,
    needs[3] ? spmmRow([columns, rows, g!, a], { size: b.shape[0] })[0] : null,
  ],
  batch: (ctx): Tensor[] => {
    const [rows, columns, a, b] = widen(ctx)
    const fold = (x: Tensor) => reshape(x, [x.shape[0] * x.shape[1], x.shape[2]])
    const flat = [onDiagonal(rows, a.shape[1]), onDiagonal(columns, b.shape[1]), fold(a), fold(b)]
    return [reshape(sddmmRow(flat, {})[0], rows.shape)]
  },
  flops: ([rows, , a]) => 2 * sizeOf(rows.shape) * a.shape[1],
})

/** A sparse matrix, by coordinates (COO: `rows`) or compressed rows (CSR: `rowPtr`). */
export interface SparseMatrix {
  /** int32 `[entries]`, each in [0, size); any order. */
  rows?: Tensor
  /** int32 `[size + 1]`, ascending from 0 to the number of entries; instead of `rows`. */
  rowPtr?: Tensor
  /** int32 `[entries]`. */
  columns: Tensor
  /** `[entries]`; default all 1. */
  values?: Tensor
  /** Number of rows of the matrix; needed with `rows`. */
  size?: number
}

function coordinates(who: string, m: SparseMatrix): { rows: Tensor; size: number } {
  checkOptions(who, m, ['rows', 'rowPtr', 'columns', 'values', 'size'])
  if ((m.rows === undefined) === (m.rowPtr === undefined)) {
    throw new SteepestError('ARGUMENT', {
      who,
      rule: 'a sparse matrix has either `rows` or `rowPtr`',
      got: m.rows ? 'both' : 'neither',
    })
  }
  if (m.rows) {
    if (m.size === undefined)
      throw new SteepestError('ARGUMENT', { who, rule: 'a matrix given by `rows` needs `size`, its number of rows' })
    return { rows: m.rows, size: m.size }
  }
  const ptr = m.rowPtr!
  requireDtype(who, ptr, ['int32'], 'rowPtr')
  if (ptr.rank !== 1 || ptr.size < 1 || (m.size !== undefined && m.size !== ptr.size - 1)) {
    throw bad(who, `rowPtr must be of shape [${m.size === undefined ? 'rows' : m.size} + 1]`, ptr)
  }
  const entries = arange(m.columns.size, { dtype: 'int32' })
  return { rows: sub(searchsorted(ptr, entries, { side: 'right' }), 1), size: ptr.size - 1 }
}

/**
 * Sparse times dense, as in graph nets: y[r] = Σ values[e] · dense[columns[e]] over the entries e of row r. Entries of one place add up; one
 * with an index out of range (−1 for padding) counts for nothing. Each row is summed by one thread in the order of the entries, so
 * the bits do not depend on threads. Gradients flow to `values` and `dense`.
 *
 * @param matrix sparse `[size, c]`
 * @param dense `[c, n]`, float
 * @returns `[size, n]`
 */
export function spmm(matrix: SparseMatrix, dense: Tensor): Tensor {
  const { rows, size } = coordinates('spmm', matrix)
  const values = matrix.values ?? ones(matrix.columns.shape, dense.dtype)
  return spmmRow([rows, matrix.columns, values, dense], { size })[0]
}

/**
 * Products of rows at the entries of a sparse matrix: y[e] = Σₙ a[rows[e], n] · b[columns[e], n] (edge scores of a graph; the
 * derivative of `spmm` by its values).
 *
 * @param matrix the places, `values` not used; `a` gives the number of rows
 * @param a `[size, n]`
 * @param b `[c, n]`
 * @returns `[entries]`
 */
export function sddmm(matrix: Omit<SparseMatrix, 'values' | 'size'>, a: Tensor, b: Tensor): Tensor {
  const { rows } = coordinates('sddmm', { ...matrix, size: a.shape[0] })
  return sddmmRow([rows, matrix.columns, a, b], {})[0]
}
