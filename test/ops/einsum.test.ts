import { describe, expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { einsum } from '../../lib/ops/einsum.js'
import { tensor } from '../../lib/ops/shape.js'
import type { Shape } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { checkDerivatives, random } from './differences.js'

/** Every term of the sum, one by one; labels without `...`. */
function bySums(
  labels: string[],
  output: string,
  shapes: readonly Shape[],
  data: readonly ArrayLike<number>[],
): number[] {
  const lengths = new Map<string, number>()
  labels.forEach((label, i) => [...label].forEach((name, axis) => lengths.set(name, shapes[i][axis])))
  const names = [...new Set([...output, ...labels.join('')])]
  const at = new Map(names.map((n) => [n, 0]))
  const place = (label: string) => [...label].reduce((n, name) => n * lengths.get(name)! + at.get(name)!, 0)
  const out = new Array<number>([...output].reduce((n, name) => n * lengths.get(name)!, 1)).fill(0)
  const walk = (depth: number): void => {
    if (depth === names.length) {
      out[place(output)] += labels.reduce((p, label, i) => p * data[i][place(label)], 1)
      return
    }
    for (let i = 0; i < lengths.get(names[depth])!; i++) {
      at.set(names[depth], i)
      walk(depth + 1)
    }
  }
  walk(0)
  return out
}

const cases: [string, Shape[]][] = [
  [
    'ij,jk->ik',
    [
      [2, 3],
      [3, 4],
    ],
  ],
  [
    'ij,kj->ki',
    [
      [2, 3],
      [4, 3],
    ],
  ],
  [
    'bij,bjk->bik',
    [
      [2, 3, 4],
      [2, 4, 1],
    ],
  ],
  [
    'bthd,bshd->bhts',
    [
      [2, 3, 2, 4],
      [2, 5, 2, 4],
    ],
  ],
  ['i,j->ij', [[3], [2]]],
  ['i,i->', [[4], [4]]],
  ['ij->ji', [[2, 3]]],
  ['ij->', [[2, 3]]],
  ['ij->j', [[0, 3]]],
  [
    'ij,jk->ik',
    [
      [2, 0],
      [0, 4],
    ],
  ],
  [
    'ij,ij->ij',
    [
      [2, 3],
      [2, 3],
    ],
  ],
  [
    'ik,jkl,il->ij',
    [
      [2, 3],
      [4, 3, 2],
      [2, 2],
    ],
  ],
  ['ij,k->', [[2, 3], [2]]],
  [
    'abc,cd,be->ade',
    [
      [1, 2, 3],
      [3, 2],
      [2, 2],
    ],
  ],
]

describe('einsum', () => {
  test.each(cases)('%s', async (spec, shapes) => {
    const inputs = shapes.map((s, i) => random(s, i + 1))
    const [left, output] = spec.split('->')
    const y = einsum(spec, ...inputs)
    const [got, ...data] = await readAll([y, ...inputs])
    const wanted = bySums(left.split(','), output, shapes, data)
    expect(got.length).toBe(wanted.length)
    wanted.forEach((v, i) => expect(got[i]).toBeCloseTo(v, 12))
    await checkDerivatives((...xs: Tensor[]) => einsum(spec, ...xs), inputs)
  })

  test.each<[string, Shape]>([
    ['ii->i', [3, 3]],
    ['ii->', [3, 3]],
    ['iij->j', [2, 2, 3]],
    ['iji->ij', [3, 2, 3]],
    ['iii->', [3, 3, 3]],
  ])('the diagonal %s', async (spec, shape) => {
    const x = random(shape, 1)
    const [label, output] = spec.split('->')
    const [got, data] = await readAll([einsum(spec, x), x])
    bySums([label], output, [shape], [data]).forEach((v, i) => expect(got[i]).toBeCloseTo(v, 12))
    await checkDerivatives((t) => einsum(spec, t), [x])
  })

  test('without an arrow the output has the single letters in order', async () => {
    const [a, b] = [random([2, 3], 1), random([3, 4], 2)]
    const [x, y] = await readAll([einsum('ij,jk', a, b), einsum('ij,jk->ik', a, b)])
    expect(x).toEqual(y)
    expect(einsum('ba', random([2, 3], 1)).shape).toEqual([3, 2])
    expect(einsum('ii', random([2, 2], 1)).shape).toEqual([])
  })

  test('an ellipsis broadcasts', async () => {
    const [a, b] = [random([2, 1, 3, 4], 1), random([5, 4, 2], 2)]
    const y = einsum('...ij,...jk->...ik', a, b)
    expect(y.shape).toEqual([2, 5, 3, 2])
    const [got, p, q] = await readAll([y, a, b])
    for (let s = 0; s < 2; s++)
      for (let t = 0; t < 5; t++)
        for (let i = 0; i < 3; i++)
          for (let k = 0; k < 2; k++) {
            let sum = 0
            for (let j = 0; j < 4; j++) sum += p[(s * 3 + i) * 4 + j] * q[(t * 4 + j) * 2 + k]
            expect(got[((s * 5 + t) * 3 + i) * 2 + k]).toBeCloseTo(sum, 12)
          }
    await checkDerivatives(
      (x, w) => einsum('...ij,...jk->...ik', x, w),
      [random([2, 1, 3, 2], 1), random([3, 2, 2], 2)],
    )
    expect(einsum('...i->i...', random([2, 3, 4], 1)).shape).toEqual([4, 2, 3])
  })

  test('integers are summed as integers', async () => {
    const a = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { dtype: 'int32' },
    )
    const y = einsum('ij,jk->ik', a, a)
    expect(y.dtype).toBe('int32')
    expect([...(await y.read())]).toEqual([7, 10, 15, 22])
  })

  test.each<[string, Shape[], RegExp]>([
    ['ij,jk->ik', [[2, 3]], /one label per tensor/],
    [
      'ij,jk->ik',
      [
        [2, 3],
        [4, 2],
      ],
      /`j` of 3 and 4/,
    ],
    ['ij->ik', [[2, 3]], /`k`/],
    ['ij->ii', [[2, 3]], /once/],
    ['i->i', [[2, 3]], /`i` for 2 axes/],
    ['i1->i', [[2, 3]], /letters/],
    ['i->j->k', [[2]], /->/],
    ['...i->i', [[2, 3]], /\.\.\./],
  ])('refuses %s for %j', (spec, shapes, message) => {
    expect(() => einsum(spec, ...shapes.map((s) => random(s, 1)))).toThrow(message)
  })
})
