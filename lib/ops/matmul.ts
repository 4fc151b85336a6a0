import { SteepestError } from '../errors.js'
import { type DType, promote } from '../tensor/dtype.js'
import { type Aval, broadcastShapes, sameShape, showAval, showShape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type BatchContext, defineOp, FLOATS, requireDtype, type VjpContext } from './define.js'
import { add, cast, erf, exp, gelu, greater, mul, relu, sigmoid, silu, sub, tanh, where } from './elementwise.js'
import { sum } from './reduce.js'
import { broadcastTo, reshape, swapAxes, zerosLike } from './shape.js'

/** What a product may end with; the two forms of GELU are the exact one and the tanh approximation. */
export type Activation = 'none' | 'relu' | 'gelu' | 'geluTanh' | 'silu' | 'tanh'

/** @internal `y = activation(scale · a·b + bias) + residual`; a second output holds the value before the activation. */
export type MatmulAttrs = {
  scale: number
  bias: boolean
  residual: boolean
  activation: Activation
  preactivation: boolean
  outDtype: DType
}

const PLAIN = { scale: 1, bias: false, residual: false, activation: 'none', preactivation: false } as const

function inferMatmul(inputs: readonly Aval[], attrs: MatmulAttrs): Aval[] {
  const [a, b] = inputs
  const who = 'matmul'
  if (inputs.length !== 2 + Number(attrs.bias) + Number(attrs.residual)) {
    throw new SteepestError('ARGUMENT', {
      who,
      rule: 'one input per announced operand',
      got: `${inputs.length} inputs`,
    })
  }
  requireDtype(who, a, FLOATS)
  const batch = a.shape.slice(0, -2)
  const m = a.shape.at(-2)!
  const k = a.shape.at(-1)!
  const n = b.shape.at(-1)!
  if (
    a.shape.length < 2 ||
    a.shape.length !== b.shape.length ||
    !sameShape(batch, b.shape.slice(0, -2)) ||
    b.shape.at(-2) !== k
  ) {
    throw new SteepestError('SHAPE', {
      who,
      rule: 'the row takes [..., M, K] and [..., K, N]',
      got: `${showShape(a.shape)} and ${showShape(b.shape)}`,
    })
  }
  const out = attrs.outDtype
  if (b.dtype !== a.dtype || (out !== a.dtype && !(a.dtype === 'bfloat16' && out === 'float32'))) {
    throw new SteepestError('DTYPE', {
      who,
      rule: 'both operands have one dtype, the output the same or (for bfloat16) float32',
      got: `${a.dtype}, ${b.dtype}, ${out}`,
    })
  }
  const shape = [...batch, m, n]
  const bias = attrs.bias ? inputs[2] : undefined
  const residual = attrs.residual ? inputs[inputs.length - 1] : undefined
  if (bias && (!sameShape(bias.shape, [n]) || bias.dtype !== a.dtype)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: `the bias must be ${showAval({ shape: [n], dtype: a.dtype })}`,
      got: showAval(bias),
    })
  }
  if (residual && (!sameShape(residual.shape, shape) || residual.dtype !== out)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: `the residual must be ${showAval({ shape, dtype: out })}`,
      got: showAval(residual),
    })
  }
  return new Array<Aval>(attrs.preactivation ? 2 : 1).fill({ shape, dtype: out })
}

const SQRT_HALF = Math.SQRT1_2
const GELU_SCALE = Math.sqrt(2 / Math.PI)
const GELU_CUBIC = 0.044715

function activate(z: Tensor, activation: Activation): Tensor {
  if (activation === 'relu') return relu(z)
  if (activation === 'silu') return silu(z)
  if (activation === 'tanh') return tanh(z)
  if (activation === 'none') return z
  return gelu(z, { approximate: activation === 'geluTanh' ? 'tanh' : 'none' })
}

// g times the derivative of the activation at z.
function activationGrad(g: Tensor, z: Tensor, activation: Activation): Tensor {
  switch (activation) {
    case 'none':
      return g
    case 'relu':
      return where(greater(z, 0), g, zerosLike(g))
    case 'tanh': {
      const t = tanh(z)
      return mul(g, sub(1, mul(t, t)))
    }
    case 'silu': {
      const s = sigmoid(z)
      return mul(g, mul(s, add(mul(z, sub(1, s)), 1)))
    }
    case 'gelu': {
      const density = mul(exp(mul(mul(z, z), -0.5)), 1 / Math.sqrt(2 * Math.PI))
      return mul(g, add(mul(add(erf(mul(z, SQRT_HALF)), 1), 0.5), mul(z, density)))
    }
    case 'geluTanh': {
      const square = mul(z, z)
      const t = tanh(mul(mul(z, add(mul(square, GELU_CUBIC), 1)), GELU_SCALE))
      const inner = mul(add(mul(square, 3 * GELU_CUBIC), 1), GELU_SCALE)
      return mul(g, add(mul(add(t, 1), 0.5), mul(mul(mul(z, 0.5), sub(1, mul(t, t))), inner)))
    }
  }
}

const lastTwo = (x: Tensor): Tensor => swapAxes(x, -1, -2)

/** Nothing but the last two axes of another tensor, exchanged. */
function isTurned({ node, rank }: Tensor): boolean {
  if (node.op.name !== 'transpose') return false
  const { axes } = node.attrs as { axes: readonly number[] }
  return axes.every((a, i) => a === (i < rank - 2 ? i : 2 * rank - 3 - i))
}

// The gradient a·b of an operand. That of a turned one is turned again by whoever turned it: made the other way round it costs no copy.
const gradientOf = (operand: Tensor, a: Tensor, b: Tensor, attrs: MatmulAttrs): Tensor =>
  isTurned(operand) ? lastTwo(matmulRow([lastTwo(b), lastTwo(a)], attrs)[0]) : matmulRow([a, b], attrs)[0]

function vjpMatmul({ inputs, outputs, attrs, grads, needs }: VjpContext<MatmulAttrs>): (Tensor | null)[] {
  const [a, b] = inputs
  const [gy, gPre] = grads
  let g = gPre ?? null
  if (gy) {
    let throughActivation = gy
    if (attrs.activation !== 'none') {
      const z = attrs.preactivation
        ? outputs[1]
        : matmulRow(inputs.slice(0, attrs.bias ? 3 : 2), {
            ...PLAIN,
            scale: attrs.scale,
            bias: attrs.bias,
            outDtype: attrs.outDtype,
          })[0]
      throughActivation = activationGrad(gy, z, attrs.activation)
    }
    g = g ? add(g, throughActivation) : throughActivation
  }
  if (!g) return inputs.map(() => null)
  const narrow = cast(g, a.dtype)
  const plain = { ...PLAIN, scale: attrs.scale, outDtype: a.dtype }
  const out: (Tensor | null)[] = [
    needs[0] ? gradientOf(a, narrow, lastTwo(b), plain) : null,
    needs[1] ? gradientOf(b, lastTwo(a), narrow, plain) : null,
  ]
  if (attrs.bias) out.push(needs[2] ? cast(sum(g, { axis: g.shape.slice(0, -1).map((_, i) => i) }), a.dtype) : null)
  if (attrs.residual) out.push(gy ?? null)
  return out
}

// The same as separate ops, for operands that the fused form does not take.
function unfused(
  inputs: readonly Tensor[],
  bias: Tensor | undefined,
  residual: Tensor | undefined,
  attrs: MatmulAttrs,
): Tensor[] {
  let z = matmulRow(inputs, { ...PLAIN, scale: attrs.scale, outDtype: attrs.outDtype })[0]
  if (bias) z = add(z, cast(bias, attrs.outDtype))
  let y = activate(z, attrs.activation)
  if (residual) y = add(y, residual)
  return attrs.preactivation ? [y, z] : [y]
}

function batchMatmul({ inputs, batched, size, attrs }: BatchContext<MatmulAttrs>): Tensor[] {
  let [a, b] = inputs
  const biasAt = attrs.bias ? 2 : -1
  const residualAt = attrs.residual ? inputs.length - 1 : -1
  const widen = (i: number) => (batched[i] ? inputs[i] : broadcastTo(inputs[i], [size, ...inputs[i].shape]))
  const residual = residualAt < 0 ? undefined : widen(residualAt)
  if (batched[0] && !batched[1] && b.rank === 2 && !batched[biasAt]) {
    // A shared matrix: the new axis joins the rows, so that it stays one product.
    const rows = a.shape[1]
    const flat = (x: Tensor) => reshape(x, [size * rows, x.shape[2]])
    const operands = [flat(a), b, ...(biasAt < 0 ? [] : [inputs[biasAt]]), ...(residual ? [flat(residual)] : [])]
    return matmulRow(operands, attrs).map((y) => reshape(y, [size, rows, y.shape[1]]))
  }
  a = widen(0)
  b = widen(1)
  if (!batched[biasAt])
    return matmulRow([a, b, ...(biasAt < 0 ? [] : [inputs[biasAt]]), ...(residual ? [residual] : [])], attrs)
  const bias = inputs[biasAt]
  return unfused(
    [a, b],
    reshape(bias, [size, ...new Array<number>(a.rank - 2).fill(1), bias.shape[1]]),
    residual,
    attrs,
  )
}

/** @internal The row itself: operands that fit, all attributes given. */
export const matmulRow = defineOp<MatmulAttrs>({
  name: 'matmul',
  kind: 'kernel',
  doc: 'activation(scale·a·b + bias) + residual over matrices in the last two axes; the second output is the value before the activation.',
  attrs: {
    scale: 'float',
    bias: 'bool',
    residual: 'bool',
    activation: ['none', 'relu', 'gelu', 'geluTanh', 'silu', 'tanh'],
    preactivation: 'bool',
    outDtype: 'dtype',
  },
  infer: inferMatmul,
  vjp: vjpMatmul,
  batch: batchMatmul,
  flops: ([a], [y]) => 2 * sizeOf(y.shape) * a.shape[a.shape.length - 1],
  strided: 'all',
})

/**
 * Matrix product with NumPy's meaning: matrices in the last two axes, the axes before them broadcast, a vector on the left is a
 * row and one on the right a column whose axis is dropped again. bfloat16 is multiplied as it is and summed in float32.
 *
 * @param a `[..., M, K]` or `[K]`
 * @param b `[..., K, N]` or `[K]`; operands of two dtypes are brought to the wider one
 * @returns `[..., M, N]`
 * @throws {SteepestError} SHAPE where the inner lengths differ or an operand is a scalar; DTYPE for integers
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.rank === 0 || b.rank === 0) {
    throw new SteepestError('SHAPE', {
      who: 'matmul',
      rule: 'operands must have an axis',
      got: `${showShape(a.shape)} and ${showShape(b.shape)}`,
      fix: 'Use mul for a scalar',
    })
  }
  const inner = b.rank === 1 ? b.shape[0] : b.shape[b.rank - 2]
  if (a.shape[a.rank - 1] !== inner) {
    throw new SteepestError('SHAPE', {
      who: 'matmul',
      rule: 'the last axis of the first operand must be as long as the next to last (or only) axis of the second',
      got: `${showShape(a.shape)} and ${showShape(b.shape)}`,
    })
  }
  const dtype = promote(a.dtype, b.dtype)
  requireDtype('matmul', { shape: [], dtype }, FLOATS)
  const left = cast(a.rank === 1 ? reshape(a, [1, a.shape[0]]) : a, dtype)
  const right = cast(b.rank === 1 ? reshape(b, [b.shape[0], 1]) : b, dtype)
  const y = product(left, right)
  if (a.rank > 1 && b.rank > 1) return y
  return reshape(
    y,
    y.shape.filter((_, i) => !(a.rank === 1 && i === y.rank - 2) && !(b.rank === 1 && i === y.rank - 1)),
  )
}

/** @internal Operands of two axes or more and one dtype. */
function product(a: Tensor, b: Tensor): Tensor {
  const attrs = { ...PLAIN, outDtype: a.dtype }
  const batch = broadcastShapes('matmul', a.shape.slice(0, -2), b.shape.slice(0, -2))
  const [m, k] = a.shape.slice(-2)
  const n = b.shape[b.rank - 1]
  if (sizeOf(b.shape.slice(0, -2)) === 1 && sizeOf(a.shape.slice(0, -2)) === sizeOf(batch)) {
    // One shared matrix: all rows in one product, so that its gradient is one product too.
    const y = matmulRow([reshape(a, [sizeOf(batch) * m, k]), reshape(b, [k, n])], attrs)[0]
    return reshape(y, [...batch, m, n])
  }
  return matmulRow([broadcastTo(a, [...batch, m, k]), broadcastTo(b, [...batch, k, n])], attrs)[0]
}

/**
 * `x·Wᵀ + b`, as in PyTorch.
 *
 * @param x `[..., in]`
 * @param weight `[out, in]`
 * @param bias `[out]`
 * @returns `[..., out]`
 * @throws {SteepestError} SHAPE where the lengths do not fit
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const fits = weight.rank === 2 && x.rank > 0 && x.shape[x.rank - 1] === weight.shape[1]
  if (!fits || (bias && !sameShape(bias.shape, [weight.shape[0]]))) {
    const parts = [x, weight, ...(bias ? [bias] : [])].map((t) => showShape(t.shape))
    throw new SteepestError('SHAPE', {
      who: 'linear',
      rule: 'shapes must be [..., in], [out, in] and [out]',
      got: parts.join(', '),
    })
  }
  const y = matmul(x, swapAxes(weight, 0, 1))
  return bias ? add(y, bias) : y
}
