import { expect, test } from 'vitest'
import { accumulate, assign } from '../../lib/ops/control.js'
import { zeros } from '../../lib/ops/shape.js'
import { cases } from './cases/control.js'
import { checkCases } from './check.js'

checkCases(cases)

test('what does not fit a state is refused', () => {
  expect(() => assign(zeros([2]), zeros([3]))).toThrow(/shape and dtype of the state/)
  expect(() => assign(zeros([2]), zeros([2], 'float64'))).toThrow(/shape and dtype of the state/)
  expect(() => accumulate(zeros([2]), zeros([3]))).toThrow(/shape of the sum/)
})
