import { describe, expect, test } from 'vitest'
import { sddmm, spmm } from '../../lib/ops/sparse.js'
import { tensor } from '../../lib/ops/shape.js'
import { vmap } from '../../lib/transform/index.js'
import { checkDerivatives, expectClose, random } from './differences.js'
import { expectSameBits } from './threads.js'
import { cases as rowCases } from './cases/sparse.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const ints = (values: number[] | number[][]) => tensor(values, { dtype: 'int32' })
// Unsorted, with a place that occurs twice and an entry that is padding.
const rows = ints([2, 0, 1, 0, 2, -1])
const columns = ints([1, 3, 0, 1, 1, 2])

describe('sparse products', () => {
  test('by coordinates and by compressed rows', async () => {
    const values = tensor([1, 2, 3, 4, 5, 6])
    const dense = tensor([
      [1, 10],
      [2, 20],
      [3, 30],
      [4, 40],
    ])
    expect([...(await spmm({ rows, columns, values, size: 4 }, dense).read())]).toEqual([16, 160, 3, 30, 12, 120, 0, 0])
    const rowPtr = ints([0, 2, 2, 3])
    expect([...(await spmm({ rowPtr, columns: ints([0, 1, 3]) }, dense).read())]).toEqual([3, 30, 0, 0, 4, 40])
    const a = tensor([
      [1, 1],
      [2, 0],
      [0, 1],
    ])
    expect([...(await sddmm({ rows, columns }, a, dense).read())]).toEqual([20, 44, 2, 22, 20, 0])
    expect([...(await sddmm({ rowPtr, columns: ints([0, 1, 3]) }, a, dense).read())]).toEqual([11, 22, 40])
  })

  test.each([0, 1, 3, 70])('derivatives and vmap with %d columns', async (n) => {
    await checkDerivatives(
      (values, dense) => spmm({ rows, columns, values, size: 3 }, dense),
      [random([6], 1), random([4, n], 2)],
    )
    await checkDerivatives((a, b) => sddmm({ rows, columns }, a, b), [random([3, n], 3), random([4, n], 4)])
  })

  test('derivatives without entries, and of compressed rows', async () => {
    await checkDerivatives(
      (values, dense) => spmm({ rows: ints([]), columns: ints([]), values, size: 2 }, dense),
      [random([0], 1), random([4, 2], 2)],
    )
    await checkDerivatives(
      (values, dense) => spmm({ rowPtr: ints([0, 2, 2, 3]), columns: ints([0, 1, 3]), values }, dense),
      [random([3], 1), random([4, 2], 2)],
    )
  })

  test('vmap over indices: every example has its own graph', async () => {
    const r = [ints([0, 1, 1]), ints([2, 2, -1])]
    const c = [ints([3, 0, 1]), ints([1, 9, 0])]
    const values = random([2, 3], 1)
    const dense = random([2, 4, 5], 2)
    const all = vmap((rows, columns, values, dense) => spmm({ rows, columns, values, size: 3 }, dense))(
      ints([
        [0, 1, 1],
        [2, 2, -1],
      ]),
      ints([
        [3, 0, 1],
        [1, 9, 0],
      ]),
      values,
      dense,
    )
    const [v, d, y] = [await values.read(), await dense.read(), await all.read()]
    for (let i = 0; i < 2; i++) {
      const one = spmm(
        { rows: r[i], columns: c[i], values: tensor(v.slice(3 * i, 3 * i + 3)), size: 3 },
        tensor(d.slice(20 * i, 20 * i + 20), { shape: [4, 5] }),
      )
      await expectClose(tensor(y.slice(15 * i, 15 * i + 15), { shape: [3, 5] }), one, 1e-15)
    }
  })

  test('refuses what does not fit', () => {
    const dense = random([4, 2], 1)
    expect(() => spmm({ columns }, dense)).toThrow('[spmm] a sparse matrix has either `rows` or `rowPtr`; got neither')
    expect(() => spmm({ rows, columns }, dense)).toThrow('needs `size`')
    expect(() => spmm({ rows, columns, size: 3, values: random([5], 1) }, dense)).toThrow(
      '[spmm] values must be of shape [6]; got float64[5]',
    )
    expect(() => spmm({ row: rows, columns } as object as { columns: typeof columns }, dense)).toThrow(
      'Did you mean `rows`?',
    )
  })

  test('the bits do not depend on the number of threads', async () => {
    const entries = 5000
    const index = (mod: number, step: number) =>
      ints(Array.from({ length: entries }, (_, i) => (i * step * 7919) % mod))
    const [r, c] = [index(700, 3), index(900, 5)]
    const values = random([entries], 1, 'float32')
    const dense = random([900, 33], 2, 'float32')
    await expectSameBits(() => [
      spmm({ rows: r, columns: c, values, size: 700 }, dense),
      sddmm({ rows: r, columns: c }, random([700, 33], 4, 'float32'), dense),
    ])
  })
})
