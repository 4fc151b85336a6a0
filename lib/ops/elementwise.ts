import { checkOptions, SteepestError } from '../errors.js'
import { type DType, DTYPES, isFloat, promote } from '../tensor/dtype.js'
import { type Aval, broadcastShapes, showAval, sizeOf } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { type BatchContext, defineOp, FLOATS, type VjpContext } from './define.js'
import { broadcastTo, reshape, scalar } from './shape.js'

/** What arithmetic takes: a tensor, or a number that takes the dtype of the tensor beside it. */
export type Operand = Tensor | number

type NoAttrs = Record<never, never>
type Row = (...inputs: readonly Tensor[]) => Tensor
type Vjp = (ctx: VjpContext<NoAttrs>) => (Tensor | null)[]

/** Every elementwise row batches in the same way: the new axis first, the others aligned from the last. */
function batchRow(row: Row): (ctx: BatchContext<NoAttrs>) => Tensor[] {
  return ({ inputs, batched, size }) => {
    const rank = Math.max(...inputs.map((t, i) => t.rank - (batched[i] ? 1 : 0)))
    const aligned = inputs.map((t, i) =>
      batched[i] ? reshape(t, [size, ...new Array<number>(rank - t.rank + 1).fill(1), ...t.shape.slice(1)]) : t,
    )
    const shape = broadcastShapes('vmap', ...aligned.map((t) => t.shape))
    return [row(...aligned.map((t) => broadcastTo(t, shape)))]
  }
}

interface RowOptions {
  name: string
  doc: string
  vjp: Vjp | string
  /** Dtypes of the operands; all by default. */
  dtypes?: readonly DType[]
  result?: (operand: DType) => DType
  flops?: number
}

/** Adds an elementwise row; its inputs have one shape and one dtype. */
function define({ name, doc, vjp, dtypes, result = (d) => d, flops = 1 }: RowOptions): Row {
  const make = defineOp<NoAttrs>({
    name,
    kind: 'elementwise',
    doc,
    attrs: {},
    infer: (inputs) => {
      const operand = inputs[inputs.length - 1]
      if (dtypes && !dtypes.includes(operand.dtype)) {
        throw new SteepestError('DTYPE', {
          who: name,
          rule: `operands must be ${dtypes.join(' or ')}`,
          got: inputs.map(showAval).join(' and '),
          fix: 'Use cast',
        })
      }
      return [{ shape: operand.shape, dtype: result(operand.dtype) }]
    },
    vjp,
    batch: (ctx) => batchRow(row)(ctx),
    flops: (_, outputs) => flops * sizeOf(outputs[0].shape),
  })
  const row: Row = (...inputs) => make(inputs, {})[0]
  return row
}

const asTensor = (x: Operand, like: Aval | undefined): Tensor =>
  x instanceof Tensor ? x : scalar(x, like?.dtype ?? 'float32')

/** Operands with one shape and one dtype. */
function align(who: string, operands: readonly Operand[], dtype?: DType): Tensor[] {
  const tensors = operands.filter((x) => x instanceof Tensor)
  const like = tensors.reduce<DType | undefined>((d, t) => (d === undefined ? t.dtype : promote(d, t.dtype)), undefined)
  const fractional = operands.some((x) => typeof x === 'number' && !Number.isInteger(x))
  const common = dtype ?? (like === undefined || (fractional && !isFloat(like)) ? 'float32' : like)
  const shape = broadcastShapes(who, ...tensors.map((t) => t.shape))
  return operands.map((x) => broadcastTo(x instanceof Tensor ? cast(x, common) : scalar(x, common), shape))
}

/** Integers are taken as float32 by functions that have no integer meaning. */
const toFloat = (x: Operand): Tensor => {
  const t = asTensor(x, undefined)
  return isFloat(t.dtype) ? t : cast(t, 'float32')
}

const binary = (options: RowOptions) => {
  const row = define(options)
  return (a: Operand, b: Operand): Tensor => row(...align(options.name, [a, b]))
}

const unary = (options: RowOptions) => {
  const row = define({ dtypes: FLOATS, ...options })
  return (x: Tensor): Tensor => row(toFloat(x))
}

const anyUnary = (options: RowOptions) => {
  const row = define(options)
  return (x: Tensor): Tensor => row(x)
}

const mask: (operand: DType) => DType = () => 'uint8'
const noSlope = 'the result is not continuous, so it has no derivative'

// Arithmetic -----------------------------------------------------------------------------------------------------------

/** a + b, by NumPy's broadcasting. */
export const add = binary({ name: 'add', doc: 'a + b', vjp: ({ grads: [g] }) => [g, g] })

/** a − b. */
export const sub = binary({ name: 'sub', doc: 'a - b', vjp: ({ grads: [g], needs }) => [g, needs[1] ? neg(g!) : null] })

/** a · b. */
export const mul = binary({
  name: 'mul',
  doc: 'a * b',
  vjp: ({ inputs: [a, b], grads: [g], needs }) => [needs[0] ? mul(g!, b) : null, needs[1] ? mul(g!, a) : null],
})

const divRow = define({
  name: 'div',
  doc: 'a / b',
  dtypes: FLOATS,
  vjp: ({ inputs: [, b], outputs: [y], grads: [g], needs }) => [
    needs[0] ? div(g!, b) : null,
    needs[1] ? neg(mul(div(g!, b), y)) : null,
  ],
})

/** a / b; integers are divided as float32. */
export function div(a: Operand, b: Operand): Tensor {
  const [x, y] = align('div', [a, b])
  return isFloat(x.dtype) ? divRow(x, y) : divRow(cast(x, 'float32'), cast(y, 'float32'))
}

/** ⌊a / b⌋, with the sign rule of NumPy; no gradient. */
export const floorDiv = binary({ name: 'floorDiv', doc: 'floor(a / b)', vjp: noSlope })

/** a − b·⌊a / b⌋: the remainder with the sign of b; the gradient is that of a − b·constant. */
export const remainder = binary({
  name: 'remainder',
  doc: 'a - b floor(a / b)',
  vjp: ({ inputs: [a, b], grads: [g], needs }) => [g, needs[1] ? neg(mul(g!, floor(div(a, b)))) : null],
})

/** −x. */
export const neg = anyUnary({ name: 'neg', doc: '-x', vjp: ({ grads: [g] }) => [neg(g!)] })

/** |x|; the derivative at 0 is 0. */
export const abs = anyUnary({ name: 'abs', doc: '|x|', vjp: ({ inputs: [x], grads: [g] }) => [mul(g!, sign(x))] })

/** −1, 0 or 1; its derivative is 0. */
export const sign = anyUnary({ name: 'sign', doc: 'the sign of x', vjp: () => [null] })

const powRow = define({
  name: 'pow',
  doc: 'a ** b',
  dtypes: FLOATS,
  flops: 10,
  vjp: ({ inputs: [a, b], outputs: [y], grads: [g], needs }) => [
    needs[0] ? mul(g!, where(equal(b, 0), 0, mul(b, pow(a, sub(b, 1))))) : null,
    // Where a is 0 the power does not change with b.
    needs[1] ? mul(g!, where(equal(a, 0), 0, mul(y, log(where(equal(a, 0), 1, a))))) : null,
  ],
})

/** a to the power b; whole exponents 2 and ½ take the short way. */
export function pow(a: Operand, b: Operand): Tensor {
  if (a instanceof Tensor && b === 2) return square(a)
  if (a instanceof Tensor && b === 0.5) return sqrt(a)
  const [x, y] = align('pow', [a, b])
  return isFloat(x.dtype) ? powRow(x, y) : powRow(cast(x, 'float32'), cast(y, 'float32'))
}

/** Gradients of the larger (or smaller) of two; equal ones share it. */
const pickVjp =
  (better: (a: Operand, b: Operand) => Tensor): Vjp =>
  ({ inputs: [a, b], grads: [g], needs }) => {
    const half = mul(cast(equal(a, b), g!.dtype), 0.5)
    const share = (x: Tensor, y: Tensor) => mul(g!, add(cast(better(x, y), g!.dtype), half))
    return [needs[0] ? share(a, b) : null, needs[1] ? share(b, a) : null]
  }

/** The larger of two; NaN wins; equal ones share the gradient. */
export const maximum = binary({ name: 'maximum', doc: 'the larger of a and b', vjp: (ctx) => pickVjp(greater)(ctx) })

/** The smaller of two; NaN wins; equal ones share the gradient. */
export const minimum = binary({ name: 'minimum', doc: 'the smaller of a and b', vjp: (ctx) => pickVjp(less)(ctx) })

/** x held within [low, high]; the gradient is 0 outside and 1 at the bounds. */
export function clip(x: Tensor, low: number | null, high: number | null): Tensor {
  let y = x
  // Compared so that NaN stays, and a number at a bound keeps its gradient.
  if (low !== null) y = where(less(y, low), low, y)
  if (high !== null) y = where(greater(y, high), high, y)
  return y
}

// Comparison and logic -------------------------------------------------------------------------------------------------

const compare = (name: string, doc: string) => binary({ name, doc, result: mask, vjp: noSlope })

/** 1 where a = b, else 0 (uint8). */
export const equal = compare('equal', 'a == b')
/** 1 where a ≠ b, else 0. */
export const notEqual = compare('notEqual', 'a != b')
/** 1 where a < b, else 0. */
export const less = compare('less', 'a < b')
/** 1 where a ≤ b, else 0. */
export const lessEqual = compare('lessEqual', 'a <= b')
/** 1 where a > b, else 0. */
export const greater = compare('greater', 'a > b')
/** 1 where a ≥ b, else 0. */
export const greaterEqual = compare('greaterEqual', 'a >= b')

const truth = (x: Operand): Tensor => {
  const t = asTensor(x, undefined)
  return t.dtype === 'uint8' ? t : notEqual(t, 0)
}

const logical = (name: string, doc: string) => {
  const row = define({ name, doc, dtypes: ['uint8'], vjp: noSlope })
  return (a: Operand, b: Operand): Tensor => row(...align(name, [truth(a), truth(b)]))
}

/** 1 where both are not 0. */
export const logicalAnd = logical('logicalAnd', 'a and b')
/** 1 where one is not 0. */
export const logicalOr = logical('logicalOr', 'a or b')

const notRow = define({ name: 'logicalNot', doc: 'not a', dtypes: ['uint8'], vjp: noSlope })
/** 1 where x is 0. */
export const logicalNot = (x: Tensor): Tensor => notRow(truth(x))

/** 1 where x is neither infinite nor NaN. */
export const isFinite = anyUnary({ name: 'isFinite', doc: 'x is neither infinite nor NaN', result: mask, vjp: noSlope })
/** 1 where x is NaN. */
export const isNaN = anyUnary({ name: 'isNaN', doc: 'x is NaN', result: mask, vjp: noSlope })

const whereRow = define({
  name: 'where',
  doc: 'a where the condition holds, else b',
  vjp: ({ inputs: [c, a, b], grads: [g], needs }) => [
    null,
    needs[1] ? where(c, g!, zeroLike(a)) : null,
    needs[2] ? where(c, zeroLike(b), g!) : null,
  ],
})
const zeroLike = (t: Tensor): Tensor => scalar(0, t.dtype)

/** a where the condition is not 0, else b. The gradient of the other branch is exactly 0, even where that branch is not finite. */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  const [x, y] = align('where', [a, b])
  const shape = broadcastShapes('where', condition.shape, x.shape)
  return whereRow(broadcastTo(truth(condition), shape), broadcastTo(x, shape), broadcastTo(y, shape))
}

// Exponentials ---------------------------------------------------------------------------------------------------------

const heavy = { flops: 10 }

/** eˣ. */
export const exp = unary({ name: 'exp', doc: 'e ** x', ...heavy, vjp: ({ outputs: [y], grads: [g] }) => [mul(g!, y)] })
/** eˣ − 1, exact near 0. */
export const expm1 = unary({
  name: 'expm1',
  doc: 'e ** x - 1',
  ...heavy,
  vjp: ({ outputs: [y], grads: [g] }) => [mul(g!, add(y, 1))],
})
/** Natural logarithm. */
export const log = unary({
  name: 'log',
  doc: 'natural logarithm',
  ...heavy,
  vjp: ({ inputs: [x], grads: [g] }) => [div(g!, x)],
})
/** log(1 + x), exact near 0. */
export const log1p = unary({
  name: 'log1p',
  doc: 'log(1 + x)',
  ...heavy,
  vjp: ({ inputs: [x], grads: [g] }) => [div(g!, add(x, 1))],
})
/** √x. */
export const sqrt = unary({
  name: 'sqrt',
  doc: 'square root',
  flops: 2,
  vjp: ({ outputs: [y], grads: [g] }) => [div(mul(g!, 0.5), y)],
})
/** 1/√x. */
export const rsqrt = unary({
  name: 'rsqrt',
  doc: '1 / sqrt(x)',
  flops: 2,
  vjp: ({ inputs: [x], outputs: [y], grads: [g] }) => [mul(mul(g!, -0.5), div(y, x))],
})
/** x². */
export const square = anyUnary({
  name: 'square',
  doc: 'x * x',
  vjp: ({ inputs: [x], grads: [g] }) => [mul(g!, mul(x, 2))],
})
/** 1/x. */
export const reciprocal = unary({
  name: 'reciprocal',
  doc: '1 / x',
  vjp: ({ outputs: [y], grads: [g] }) => [neg(mul(g!, square(y)))],
})
/** Hyperbolic tangent. */
export const tanh = unary({
  name: 'tanh',
  doc: 'hyperbolic tangent',
  ...heavy,
  vjp: ({ outputs: [y], grads: [g] }) => [mul(g!, sub(1, square(y)))],
})
/** Error function. */
export const erf = unary({
  name: 'erf',
  doc: 'error function',
  ...heavy,
  vjp: ({ inputs: [x], grads: [g] }) => [mul(g!, mul(exp(neg(square(x))), 2 / Math.sqrt(Math.PI)))],
})
/** 1/(1 + e⁻ˣ). */
export const sigmoid = unary({
  name: 'sigmoid',
  doc: '1 / (1 + e ** -x)',
  ...heavy,
  vjp: ({ outputs: [y], grads: [g] }) => [mul(g!, mul(y, sub(1, y)))],
})
/** log(1 + eˣ), without overflow. */
export const softplus = unary({
  name: 'softplus',
  doc: 'log(1 + e ** x)',
  ...heavy,
  vjp: ({ inputs: [x], grads: [g] }) => [mul(g!, sigmoid(x))],
})
/** Sine. */
export const sin = unary({
  name: 'sin',
  doc: 'sine',
  ...heavy,
  vjp: ({ inputs: [x], grads: [g] }) => [mul(g!, cos(x))],
})
/** Cosine. */
export const cos = unary({
  name: 'cos',
  doc: 'cosine',
  ...heavy,
  vjp: ({ inputs: [x], grads: [g] }) => [neg(mul(g!, sin(x)))],
})

// Rounding -------------------------------------------------------------------------------------------------------------

/** The largest whole number that is not greater; its derivative is 0. */
export const floor = anyUnary({ name: 'floor', doc: 'the largest whole number not above x', vjp: () => [null] })
/** The smallest whole number that is not less; its derivative is 0. */
export const ceil = anyUnary({ name: 'ceil', doc: 'the smallest whole number not below x', vjp: () => [null] })
/** The nearest whole number, halves to even; its derivative is 0. */
export const round = anyUnary({ name: 'round', doc: 'the nearest whole number, halves to even', vjp: () => [null] })

// Activations ----------------------------------------------------------------------------------------------------------

/** max(x, 0); the derivative at 0 is 0. */
export const relu = anyUnary({
  name: 'relu',
  doc: 'max(x, 0)',
  // By its value, which the layer above keeps anyhow: x need not outlive the forward pass.
  vjp: ({ outputs: [y], grads: [g] }) => [where(greater(y, 0), g!, 0)],
})

/** The cotangent of an activation as one step; its own derivative comes from the formula in plain ops. */
function activationGrad(name: string, doc: string, formula: (x: Tensor) => Tensor): (x: Tensor, g: Tensor) => Tensor {
  const row = define({
    name,
    doc,
    dtypes: FLOATS,
    flops: 15,
    vjp: ({ inputs: [x, g], grads: [c], needs }) => {
      if (!needs[0]) return [null, row(x, c!)]
      const h = slopeOf(formula, x)
      return [mul(mul(c!, g), h), needs[1] ? row(x, c!) : null]
    },
  })
  return (x, g) => row(x, g)
}

const slopes = new WeakMap<(x: Tensor) => Tensor, (x: Tensor) => Tensor>()
/** The derivative of a slope, as its family registered it. */
function slopeOf(formula: (x: Tensor) => Tensor, x: Tensor): Tensor {
  return slopes.get(formula)!(x)
}

const SQRT_HALF = Math.SQRT1_2
const DENSITY = 1 / Math.sqrt(2 * Math.PI)

// gelu'(x) = Φ(x) + xφ(x), so gelu''(x) = φ(x)(2 − x²).
const geluSlope = (x: Tensor): Tensor =>
  add(mul(add(erf(mul(x, SQRT_HALF)), 1), 0.5), mul(x, mul(exp(mul(square(x), -0.5)), DENSITY)))
slopes.set(geluSlope, (x) => mul(mul(exp(mul(square(x), -0.5)), DENSITY), sub(2, square(x))))
const geluGrad = activationGrad('geluGrad', 'g times the derivative of gelu at x', geluSlope)
const geluRow = unary({
  name: 'gelu',
  doc: 'x Phi(x)',
  flops: 12,
  vjp: ({ inputs: [x], grads: [g] }) => [geluGrad(x, g!)],
})

const TANH_A = Math.sqrt(2 / Math.PI)
const TANH_B = 0.044715
// With u = a(x + bx³) and t = tanh u: y = x(1 + t)/2, y' = (1 + t)/2 + x(1 − t²)u'/2.
const geluTanhParts = (x: Tensor) => {
  const x2 = square(x)
  const t = tanh(mul(mul(x, add(mul(x2, TANH_B), 1)), TANH_A))
  return { t, du: mul(add(mul(x2, 3 * TANH_B), 1), TANH_A), rest: sub(1, square(t)) }
}
const geluTanhSlope = (x: Tensor): Tensor => {
  const { t, du, rest } = geluTanhParts(x)
  return mul(add(add(t, 1), mul(mul(x, rest), du)), 0.5)
}
slopes.set(geluTanhSlope, (x) => {
  const { t, du, rest } = geluTanhParts(x)
  const ddu = mul(x, 6 * TANH_A * TANH_B)
  const inner = sub(ddu, mul(mul(t, square(du)), 2))
  return mul(rest, add(du, mul(mul(x, inner), 0.5)))
})
const geluTanhGrad = activationGrad('geluTanhGrad', 'g times the derivative of geluTanh at x', geluTanhSlope)
const geluTanhRow = unary({
  name: 'geluTanh',
  doc: 'x (1 + tanh(sqrt(2/pi) (x + 0.044715 x ** 3))) / 2',
  flops: 15,
  vjp: ({ inputs: [x], grads: [g] }) => [geluTanhGrad(x, g!)],
})

/** Gaussian error linear unit (Hendrycks and Gimpel 2016): exact, or GPT-2's tanh form. */
export function gelu(x: Tensor, options: { approximate?: 'none' | 'tanh' } = {}): Tensor {
  checkOptions('gelu', options, ['approximate'])
  return options.approximate === 'tanh' ? geluTanhRow(x) : geluRow(x)
}

const siluSlope = (x: Tensor): Tensor => {
  const s = sigmoid(x)
  return mul(s, add(mul(x, sub(1, s)), 1))
}
slopes.set(siluSlope, (x) => {
  const s = sigmoid(x)
  const d = mul(s, sub(1, s))
  return mul(d, add(mul(x, sub(1, mul(s, 2))), 2))
})
const siluGrad = activationGrad('siluGrad', 'g times the derivative of silu at x', siluSlope)
/** x·sigmoid(x). */
export const silu = unary({
  name: 'silu',
  doc: 'x sigmoid(x)',
  flops: 11,
  vjp: ({ inputs: [x], grads: [g] }) => [siluGrad(x, g!)],
})

// Conversion and the fused instruction ---------------------------------------------------------------------------------

const castRow = defineOp<{ dtype: DType }>({
  name: 'cast',
  kind: 'elementwise',
  doc: 'the same number in another dtype',
  attrs: { dtype: 'dtype' },
  infer: ([x], { dtype }) => [{ shape: x.shape, dtype }],
  vjp: ({ inputs: [x], grads: [g] }) => [isFloat(x.dtype) ? cast(g!, x.dtype) : null],
  batch: ({ inputs: [x], attrs }) => [cast(x, attrs.dtype)],
})

/** The numbers in another dtype; floats become whole numbers by truncation toward zero. */
export const cast = (x: Tensor, dtype: DType): Tensor => {
  if (x.dtype === dtype) return x
  // The gradient of what never was a float ends here.
  return castRow([x], { dtype })[0]
}

defineOp<{ constants: number[]; code: number[]; outputs: number[]; shape: number[] }>({
  name: 'elementwise',
  kind: 'kernel',
  doc: 'A chain of elementwise steps over one pass of memory; made by the fusion pass.',
  attrs: { constants: 'floats', code: 'floats', outputs: 'ints', shape: 'ints' },
  strided: 'all',
  infer: (inputs, { code, outputs, constants, shape }) => {
    const first = inputs.length + constants.length
    return outputs.map((r) => ({
      shape,
      dtype: r < inputs.length ? inputs[r].dtype : DTYPES[code[(r - first) * 6 + 2]],
    }))
  },
  vjp: 'fused chains are made after differentiation',
  flops: (_, outputs, { code }) => (code.length / 6) * sizeOf(outputs[0]?.shape ?? []),
})
