import * as ops from '../../lib/ops/index.js'
import { sum } from '../../lib/ops/reduce.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad } from '../../lib/transform/index.js'

/** How one row is tested. */
export interface Case {
  f: (...xs: Tensor[]) => Tensor
  /** The same in JavaScript's float64. */
  value: (...xs: number[]) => number
  /** Where the operands lie, one interval each. */
  domain: readonly (readonly [number, number])[]
  /** False where the row has no derivative. */
  smooth?: boolean
  /** Operands that are whole numbers, so that equal ones meet. */
  whole?: boolean
}

/** erf by its series of positive terms: 2/√π e^(−x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!. */
function erf(x: number): number {
  let term = x
  let total = x
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(total); n++) {
    term *= (2 * x * x) / (2 * n + 1)
    total += term
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x))
const phi = (x: number): number => 0.5 * (1 + erf(x * Math.SQRT1_2))
const density = (x: number): number => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI)
const inner = (x: number): number => 2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)
const innerSlope = (x: number): number => 2 * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x)
const floorMod = (a: number, b: number): number => a - b * Math.floor(a / b)
const half = (x: number): number => {
  const down = Math.floor(x)
  const odd = Math.abs(down % 2) === 1
  return x - down > 0.5 || (x - down === 0.5 && odd) ? down + 1 : down
}

const one = [[-2, 2]] as const
const two = [
  [-2, 2],
  [-2, 2],
] as const
const positive = [[0.1, 3]] as const
const compare = (f: (a: Tensor, b: Tensor) => Tensor, holds: (a: number, b: number) => boolean): Case => ({
  f,
  value: (a, b) => Number(holds(a, b)),
  domain: [
    [-3, 3],
    [-3, 3],
  ],
  smooth: false,
  whole: true,
})
/** The row that the gradient of `f` is made of, times a second operand. */
const slope = (f: (x: Tensor) => Tensor, value: (x: number) => number): Case => ({
  f: (x, g) => grad((t: Tensor) => sum(ops.mul(f(t), g)))(x),
  value: (x, g) => g * value(x),
  domain: two,
})

/** One case for each elementwise row, by the row's name. */
export const cases: Readonly<Record<string, Case>> = {
  add: { f: ops.add, value: (a, b) => a + b, domain: two },
  sub: { f: ops.sub, value: (a, b) => a - b, domain: two },
  mul: { f: ops.mul, value: (a, b) => a * b, domain: two },
  div: {
    f: ops.div,
    value: (a, b) => a / b,
    domain: [
      [-2, 2],
      [0.5, 2],
    ],
  },
  floorDiv: {
    f: ops.floorDiv,
    value: (a, b) => Math.floor(a / b),
    domain: [
      [-9, 9],
      [0.5, 2],
    ],
    smooth: false,
  },
  remainder: {
    f: ops.remainder,
    value: floorMod,
    domain: [
      [-9, 9],
      [-3, -1],
    ],
  },
  neg: { f: ops.neg, value: (a) => -a, domain: one },
  abs: { f: ops.abs, value: Math.abs, domain: one },
  sign: { f: ops.sign, value: Math.sign, domain: one },
  pow: {
    f: ops.pow,
    value: (a, b) => a ** b,
    domain: [
      [0.2, 3],
      [-3, 3],
    ],
  },
  maximum: { f: ops.maximum, value: Math.max, domain: two },
  minimum: { f: ops.minimum, value: Math.min, domain: two },
  equal: compare(ops.equal, (a, b) => a === b),
  notEqual: compare(ops.notEqual, (a, b) => a !== b),
  less: compare(ops.less, (a, b) => a < b),
  lessEqual: compare(ops.lessEqual, (a, b) => a <= b),
  greater: compare(ops.greater, (a, b) => a > b),
  greaterEqual: compare(ops.greaterEqual, (a, b) => a >= b),
  logicalAnd: compare(ops.logicalAnd, (a, b) => a !== 0 && b !== 0),
  logicalOr: compare(ops.logicalOr, (a, b) => a !== 0 || b !== 0),
  logicalNot: { f: ops.logicalNot, value: (a) => Number(a === 0), domain: [[-3, 3]], smooth: false, whole: true },
  isFinite: {
    f: (x) => ops.isFinite(ops.div(1, x)),
    value: (a) => Number(a !== 0),
    domain: [[-3, 3]],
    smooth: false,
    whole: true,
  },
  isNaN: {
    f: (x) => ops.isNaN(ops.div(x, ops.mul(x, x))),
    value: (a) => Number(a === 0),
    domain: [[-3, 3]],
    smooth: false,
    whole: true,
  },
  where: {
    f: (a, b) => ops.where(ops.less(a, b), ops.mul(a, b), ops.sub(a, b)),
    value: (a, b) => (a < b ? a * b : a - b),
    domain: two,
  },
  exp: { f: ops.exp, value: Math.exp, domain: [[-3, 2]] },
  expm1: { f: ops.expm1, value: Math.expm1, domain: one },
  log: { f: ops.log, value: Math.log, domain: positive },
  log1p: { f: ops.log1p, value: Math.log1p, domain: [[-0.8, 3]] },
  sqrt: { f: ops.sqrt, value: Math.sqrt, domain: positive },
  rsqrt: { f: ops.rsqrt, value: (x) => 1 / Math.sqrt(x), domain: [[0.3, 3]] },
  square: { f: ops.square, value: (x) => x * x, domain: one },
  reciprocal: { f: ops.reciprocal, value: (x) => 1 / x, domain: [[0.5, 3]] },
  tanh: { f: ops.tanh, value: Math.tanh, domain: one },
  erf: { f: ops.erf, value: erf, domain: one },
  sigmoid: { f: ops.sigmoid, value: sigmoid, domain: [[-5, 5]] },
  softplus: { f: ops.softplus, value: (x) => Math.log1p(Math.exp(x)), domain: [[-5, 5]] },
  sin: { f: ops.sin, value: Math.sin, domain: [[-3, 3]] },
  cos: { f: ops.cos, value: Math.cos, domain: [[-3, 3]] },
  floor: { f: ops.floor, value: Math.floor, domain: [[-9, 9]] },
  ceil: { f: ops.ceil, value: Math.ceil, domain: [[-9, 9]] },
  round: { f: ops.round, value: half, domain: [[-9, 9]] },
  relu: { f: ops.relu, value: (x) => Math.max(x, 0), domain: one },
  gelu: { f: (x) => ops.gelu(x), value: (x) => x * phi(x), domain: one },
  geluGrad: slope(
    (x) => ops.gelu(x),
    (x) => phi(x) + x * density(x),
  ),
  geluTanh: { f: (x) => ops.gelu(x, { approximate: 'tanh' }), value: (x) => x * sigmoid(inner(x)), domain: one },
  geluTanhGrad: slope(
    (x) => ops.gelu(x, { approximate: 'tanh' }),
    (x) => {
      const s = sigmoid(inner(x))
      return s + x * s * (1 - s) * innerSlope(x)
    },
  ),
  silu: { f: ops.silu, value: (x) => x * sigmoid(x), domain: one },
  siluGrad: slope(ops.silu, (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
  cast: { f: (x) => ops.cast(ops.cast(x, 'int32'), x.dtype), value: Math.trunc, domain: [[-9, 9]], smooth: false },
}
