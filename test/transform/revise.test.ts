import { describe, expect, test } from 'vitest'
import {
  add,
  compile,
  div,
  equal,
  grad,
  less,
  matmul,
  mul,
  readAll,
  sum,
  tensor,
  type Tensor,
  vmap,
} from '../../lib/index.js'
import { revise } from '../../lib/transform/revise.js'
import { expectSameBits } from '../ops/threads.js'

const read = async (list: readonly Tensor[]) => (await readAll(list)).map((x) => [...x])
const state = () => [tensor([1, 2, 3]), tensor([[1, 2]], { dtype: 'float64' })]

describe('a revision of state', () => {
  test('is done where its condition holds, from all old states and from what is outside', async () => {
    const outside = tensor([10, 20, 30])
    const f = (a: Tensor, b: Tensor) => [
      add(mul(a, outside), sum(b).cast('float32')),
      mul(b, a.slice([[0, 2]]).cast('float64')),
    ]
    for (const [value, expected] of [
      [
        1,
        [
          [13, 43, 93],
          [1, 4],
        ],
      ],
      [
        0,
        [
          [1, 2, 3],
          [1, 2],
        ],
      ],
    ] as const) {
      expect(await read(revise(tensor(value), state(), f))).toEqual(expected)
      expect(await read(revise(tensor(value, { dtype: 'int32' }), state(), f))).toEqual(expected)
    }
  })

  test('computes nothing where it does not hold', async () => {
    const [a] = state()
    // A singular matrix would end the run.
    const f = (x: Tensor) => [
      mul(
        x,
        matmul(tensor([[0]]), tensor([[1]]))
          .reshape([])
          .log()
          .add(div(1, tensor(0))),
      ),
    ]
    expect(await read(revise(tensor(0), [a], f))).toEqual([[1, 2, 3]])
  })

  test('goes on in the memory of donated states, step after step', async () => {
    const step = compile(
      (s: Tensor[], t: Tensor) => {
        const once = revise(equal(t, 2), s, (a, b) => [add(a, 1), mul(b, 3)])
        // A second one in the same step reads what the first left; inside, one more.
        return revise(less(t, 3), once, (a, b) => {
          const [c] = revise(equal(t, 1), [a], (x) => [mul(x, 100)])
          return [add(c, 10), b]
        })
      },
      { donate: [0] },
    )
    let s = state()
    const seen = []
    for (const t of [1, 2, 3]) {
      s = step(s, tensor(t))
      seen.push(await read(s))
    }
    expect(seen).toEqual([
      [
        [110, 210, 310],
        [1, 2],
      ],
      [
        [121, 221, 321],
        [3, 6],
      ],
      [
        [121, 221, 321],
        [3, 6],
      ],
    ])
  })

  test('sees a window of a long state, which begins where a number says', async () => {
    const step = compile(
      (pool: Tensor, t: Tensor) => {
        const at = mul(t, 2)
        const [once] = revise(less(t, 3), [{ of: pool, at, shape: [2, 1] }], (w) => [add(w, mul(w, t.cast('float32')))])
        return revise(tensor(1), [{ of: once, at: tensor(1, { dtype: 'int32' }), shape: [3] }], (w) => [mul(w, 10)])[0]
      },
      { donate: [0] },
    )
    let pool = tensor([1, 2, 3, 4, 5, 6, 7])
    const seen = []
    for (const t of [1, 2, 3]) {
      pool = step(pool, tensor(t, { dtype: 'int32' }))
      seen.push([...(await pool.read())])
    }
    expect(seen).toEqual([
      [1, 20, 60, 80, 5, 6, 7],
      [1, 200, 600, 800, 15, 18, 7],
      [1, 2000, 6000, 8000, 15, 18, 7],
    ])
  })

  test.each([-1, 3])('ends the run at a window that is not within its state (%i)', async (at) => {
    const pool = tensor([1, 2, 3, 4])
    const far = tensor(at, { dtype: 'int32' })
    const [out] = revise(tensor(1), [{ of: pool, at: far, shape: [2] }], (w) => [mul(w, 10)])
    await expect(Promise.resolve(out.read())).rejects.toThrow(/index|out of/i)
    expect([...(await pool.read())]).toEqual([1, 2, 3, 4])
  })

  test('leaves states as they were for those who still read them', async () => {
    const [a] = state()
    const [b] = revise(tensor(1), [a], (x) => [mul(x, 2)])
    expect(await read([a, b, add(a, b)])).toEqual([
      [1, 2, 3],
      [2, 4, 6],
      [3, 6, 9],
    ])
  })

  test('gives the same bits with any number of threads', async () => {
    const big = tensor(
      Float32Array.from({ length: 90_000 }, (_, i) => Math.sin(i)),
      { shape: [300, 300] },
    )
    await expectSameBits(() => revise(tensor(1), [big], (x) => [matmul(x, x)]))
  })

  test('says what it cannot do', () => {
    const [a] = state()
    expect(() => revise(tensor([1, 0]), [a], (x) => [x])).toThrow(/one number/)
    expect(() => revise(tensor(1), [a], (x) => [sum(x)])).toThrow(/states must keep their shapes/)
    expect(() => revise(tensor(1), [a], () => [])).toThrow(/states must keep/)
    expect(() => grad((x: Tensor) => sum(revise(tensor(1), [x], (y) => [mul(y, y)])[0]))(a)).toThrow(/no derivative/)
    expect(() => vmap((x: Tensor) => revise(tensor(1), [x], (y) => [mul(y, y)])[0])(tensor([[1], [2]]))).toThrow(
      /mapped/,
    )
  })
})
