import { describe, expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { concat, eye } from '../../lib/ops/assemble.js'
import { add, mul } from '../../lib/ops/elementwise.js'
import { cholesky, det, eigh, inverse, lstsq, qr, slogdet, solve, svd, triangularSolve } from '../../lib/ops/linalg.js'
import { matmul } from '../../lib/ops/matmul.js'
import { sum } from '../../lib/ops/reduce.js'
import { reshape, swapAxes, tensor } from '../../lib/ops/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad } from '../../lib/transform/index.js'
import { checkDerivatives, expectClose, random } from './differences.js'
import { expectSameBits } from './threads.js'
import { cases as rowCases } from './cases/linalg.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const dual = (x: Tensor): Tensor => swapAxes(x, -1, -2)
const identity = (x: Tensor): Tensor => eye(x.shape[x.rank - 1], { dtype: x.dtype })
/** Far from singular, and positive definite. */
const safe = (x: Tensor): Tensor => add(x, mul(identity(x), 3))
const positive = (x: Tensor): Tensor => {
  const square = matmul(x, dual(x))
  return add(square, mul(identity(square), 2))
}
/** Symmetric with eigenvalues that stay apart. */
const apart = (x: Tensor): Tensor => {
  const n = x.shape[x.rank - 1]
  const steps = tensor(Float64Array.from({ length: n }, (_, i) => 3 * i))
  return add(mul(add(x, dual(x)), 0.4), mul(identity(x), steps))
}
/** Singular values that stay apart from each other and from 0. */
const spread = (x: Tensor): Tensor => {
  const [m, n] = x.shape.slice(-2)
  const steps = tensor(Float64Array.from({ length: n }, (_, i) => 3 * (i + 1)))
  return add(mul(x, 0.4), mul(eye(m, { columns: n, dtype: x.dtype }), steps))
}
const flat = (...parts: Tensor[]): Tensor =>
  concat(
    parts.map((t) => reshape(t, [-1])),
    { axis: 0 },
  )

const sizes = [0, 1, 2, 3]

describe('linear algebra', () => {
  test('gives what it says', async () => {
    const a = positive(random([2, 4, 4], 1))
    const b = random([2, 4, 3], 2)
    const l = cholesky(a)
    await expectClose(matmul(l, dual(l)), a, 1e-13)
    await expectClose(matmul(a, solve(a, b)), b, 1e-13)
    await expectClose(matmul(a, inverse(a)), add(mul(a, 0), identity(a)), 1e-13)
    await expectClose(matmul(l, triangularSolve(l, b)), b, 1e-13)
    await expectClose(matmul(dual(l), triangularSolve(l, b, { transpose: true })), b, 1e-13)
    const wide = random([2, 3, 5], 3)
    for (const mode of ['reduced', 'complete'] as const) {
      const { q, r } = qr(dual(wide), { mode })
      await expectClose(matmul(q, r), dual(wide), 1e-13)
    }
    const { u, s, vh } = svd(wide)
    await expectClose(matmul(mul(u, reshape(s, [2, 1, 3])), vh), wide, 1e-13)
    const { values, vectors } = eigh(a)
    await expectClose(matmul(mul(vectors, reshape(values, [2, 1, 4])), dual(vectors)), a, 1e-13)
    const [d, sign, log] = await readAll([
      det(
        tensor([
          [1, 2],
          [3, 4],
        ]),
      ),
      ...Object.values(
        slogdet(
          tensor([
            [1, 2],
            [3, 4],
          ]),
        ),
      ),
    ])
    expect([d[0], sign[0], log[0]].map((x: number) => Number(x.toFixed(5)))).toEqual([
      -2,
      -1,
      Number(Math.log(2).toFixed(5)),
    ])
  })

  test('least squares, tall and wide', async () => {
    const tall = random([5, 3], 1)
    const b = random([5, 2], 2)
    // The normal equations hold at the minimum.
    const x = lstsq(tall, b)
    await expectClose(matmul(dual(tall), matmul(tall, x)), matmul(dual(tall), b), 1e-12)
    const y = lstsq(dual(tall), random([3], 3))
    expect(y.shape).toEqual([5])
    await expectClose(matmul(dual(tall), y), random([3], 3), 1e-12)
    // The shortest solution lies in the span of the rows.
    const { q } = qr(tall)
    await expectClose(matmul(q, matmul(dual(q), y)), y, 1e-12)
  })

  test.each(sizes)('derivatives of cholesky, solves and determinants at %d', async (n) => {
    const a = random([n, n], 1)
    const b = random([n, 2], 2)
    await checkDerivatives((x) => cholesky(positive(x)), [a])
    await checkDerivatives((x) => cholesky(positive(x), { symmetrize: false }), [a])
    await checkDerivatives((x, y) => solve(safe(x), y), [a, b])
    await checkDerivatives((x) => inverse(safe(x)), [a])
    for (const lower of [false, true]) {
      await checkDerivatives((x, y) => triangularSolve(safe(x), y, { lower, transpose: !lower }), [a, b])
      await checkDerivatives((x, y) => triangularSolve(x, y, { lower, unitDiagonal: true }), [a, b])
    }
    await checkDerivatives((x) => slogdet(safe(x)).logAbsDet, [a])
    await checkDerivatives((x) => det(safe(x)), [a])
  })

  test('derivatives of stacks, vectors and broadcast operands', async () => {
    await checkDerivatives((x, y) => solve(safe(x), y), [random([2, 3, 3], 1), random([3], 2)])
    await checkDerivatives((x, y) => solve(safe(x), y), [random([3, 3], 1), random([2, 3, 1], 2)])
    await checkDerivatives((x) => slogdet(safe(x)).logAbsDet, [random([2, 3, 3], 1)])
  })

  test.each([
    [0, 0],
    [1, 1],
    [3, 3],
    [4, 2],
    [2, 4],
    [3, 1],
  ])('derivatives of qr, svd and lstsq at %d×%d', async (m, n) => {
    const a = random([m, n], 1)
    await checkDerivatives((x) => flat(...Object.values(qr(spread(x)))), [a])
    await checkDerivatives((x) => svd(spread(x)).s, [a])
    await checkDerivatives((x) => flat(...Object.values(svd(spread(x)))), [a])
    if (m > 0) await checkDerivatives((x, y) => lstsq(spread(x), y), [a, random([m, 2], 2)])
  })

  test.each(sizes)('derivatives of eigh at %d', async (n) => {
    await checkDerivatives((x) => flat(...Object.values(eigh(apart(x)))), [random([n, n], 1)])
    await checkDerivatives((x) => eigh(apart(x), { symmetrize: false }).values, [random([n, n], 2)])
  })

  test('a derivative that does not exist is said so', () => {
    expect(() => grad((x: Tensor) => sum(qr(x, { mode: 'complete' }).q))(random([3, 2], 1))).toThrow(
      /\[qr\] the complete form has no derivative/,
    )
  })

  test('a matrix that cannot be factorized ends the run with one sentence', async () => {
    const singular = tensor([
      [1, 2],
      [2, 4],
    ])
    await expect(solve(singular, tensor([1, 1])).read()).rejects.toThrow(
      '[solve] a matrix could not be factorized (singular, or not positive definite)',
    )
    await expect(
      cholesky(
        tensor([
          [1, 2],
          [2, 1],
        ]),
      ).read(),
    ).rejects.toThrow('[cholesky] a matrix could not be factorized')
    await expect(
      triangularSolve(
        tensor([
          [0, 0],
          [1, 1],
        ]),
        tensor([1, 1]),
      ).read(),
    ).rejects.toThrow('[triangularSolve]')
    await expect(
      svd(
        tensor([
          [Number.NaN, 2],
          [2, 1],
        ]),
      ).s.read(),
    ).rejects.toThrow('[svd] a number is not finite')
    expect([...(await slogdet(singular).logAbsDet.read())]).toEqual([-Infinity])
  })

  test('refuses wrong shapes, dtypes and options', () => {
    expect(() => cholesky(random([2, 3], 1))).toThrow('[cholesky] matrices must be square; got float64[2, 3]')
    expect(() => svd(random([3], 1))).toThrow('[svd] the input must be a matrix')
    expect(() => qr(random([2, 2], 1, 'bfloat16'))).toThrow(/\[qr\] input must be float32 or float64; got bfloat16/)
    expect(() => solve(random([2, 2], 1), random([3, 1], 1))).toThrow('[solve] shapes must be')
    expect(() => qr(random([2, 2], 1), { mod: 'complete' } as object)).toThrow('Did you mean `mode`?')
    expect(() => lstsq(random([3, 2], 1), random([4, 1], 1))).toThrow('[lstsq]')
  })

  test('the bits do not depend on the number of threads', async () => {
    const a = random([7, 6, 4], 1, 'float32')
    await expectSameBits(() => {
      const { u, s, vh } = svd(a)
      const { values, vectors } = eigh(matmul(dual(a), a))
      return [u, s, vh, values, vectors, qr(a).q, solve(positive(a), a)]
    })
  })
})
