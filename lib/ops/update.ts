import { SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { quantBlocks } from './blockwise.js'
import { type Attrs, defineOp, FLOATS } from './define.js'
import { RULES } from './rules.gen.js'
import { ruleNamed } from './rules.js'
import { normPieces, type Rounding, type States, type UpdateKind, updateLayout } from './update-layout.js'

export type { Rounding, States }

interface UpdateAttrs extends Attrs, UpdateKind {
  readonly hyper: readonly number[]
  readonly check: boolean
  /** Of each parameter. */
  readonly lrScales: readonly number[]
  readonly sites: readonly number[]
}

const RULE_NAMES = RULES.map((rule) => rule.name)

function fail(rule: string, got: Aval): never {
  throw new SteepestError(sameShape(got.shape, []) ? 'DTYPE' : 'SHAPE', { who: 'update', rule, got: showAval(got) })
}

function inferOne(attrs: UpdateAttrs, inputs: readonly Aval[]): Aval[] {
  const at = updateLayout(attrs)
  const [p, g] = inputs
  const compute = p.dtype === 'float64' ? 'float64' : 'float32'
  if (!FLOATS.includes(p.dtype)) fail('a parameter must be float32, bfloat16 or float64', p)
  const grads = p.dtype === 'bfloat16' ? ['float32', 'bfloat16'] : [p.dtype]
  if (!grads.includes(g.dtype) || !sameShape(g.shape, p.shape)) {
    fail(`the gradient of ${showAval(p)} must have its shape and be ${grads.join(' or ')}`, g)
  }
  if (at.key >= 0 && (p.dtype !== 'bfloat16' || attrs.master))
    fail('stochastic rounding is for bfloat16 weights without hidden bits', p)
  if (at.low >= 0) {
    const low = inputs[at.low]
    if (p.dtype !== 'bfloat16') fail('hidden low bits are for bfloat16 weights', p)
    if (low.dtype !== 'uint8' || !sameShape(low.shape, [2, ...p.shape]))
      fail(`the hidden bits of ${showAval(p)} must be uint8[2, …]`, low)
  }
  if (attrs.states === 'blockwise') {
    if (compute !== 'float32') fail('states in eight bits are for float32 and bfloat16 parameters', p)
    inputs.slice(at.firstSlot).forEach((x, i) => {
      const units = i % 2 === 1
      const fits = units ? sameShape(x.shape, [quantBlocks(p.shape)]) : sameShape(x.shape, p.shape)
      if (x.dtype !== (units ? 'float32' : 'uint8') || !fits)
        fail(`a state of ${showAval(p)} must be uint8 codes of its shape and a float32 unit for every 256 of them`, x)
    })
  } else {
    for (const slot of inputs.slice(at.firstSlot)) {
      if (slot.dtype !== compute || !sameShape(slot.shape, p.shape))
        fail(`a state of ${showAval(p)} must be ${compute} of its shape`, slot)
    }
  }
  return [p, ...inputs.slice(2)].map(({ shape, dtype }) => ({ shape, dtype }))
}

const sizeOfShape = (x: Aval) => x.shape.reduce((n, d) => n * d, 1)

const updateRow = defineOp<UpdateAttrs>({
  name: 'update',
  kind: 'kernel',
  faults: true,
  doc: 'One step of an optimizer on any number of parameters: moves weights and their states by an update rule, in one pass over memory.',
  attrs: {
    rule: RULE_NAMES,
    hyper: 'floats',
    scale: 'bool',
    check: 'bool',
    rounding: ['nearest', 'stochastic'],
    master: 'bool',
    states: ['full', 'blockwise'],
    lrScales: 'floats',
    sites: 'ints',
  },
  infer(inputs, attrs) {
    const at = updateLayout(attrs)
    const count = attrs.lrScales.length
    if (count === 0 || attrs.sites.length !== count || inputs.length !== at.first + count * at.inputs) {
      throw new SteepestError('ARGUMENT', {
        who: 'update',
        rule: `the rule ${attrs.rule} takes ${at.first} operands, then ${at.inputs} of each parameter`,
        got: `${inputs.length} tensors for ${count} parameters`,
      })
    }
    const args = inputs[0]
    if (args.dtype !== 'float64' || args.shape.length !== 1 || args.shape[0] < 2) {
      fail('the step arguments must be float64[k] with learning rate and step count first', args)
    }
    if (at.scale >= 0) {
      const scale = inputs[at.scale]
      if ((scale.dtype !== 'float32' && scale.dtype !== 'float64') || scale.shape.length !== 0) {
        fail('the gradient scale must be a float32 or float64 scalar', scale)
      }
    }
    if (at.key >= 0) {
      const key = inputs[at.key]
      if (key.dtype !== 'int32' || !sameShape(key.shape, [2])) fail('the random key must be int32[2]', key)
    }
    const { dtype } = inputs[at.first]
    const odd = inputs.slice(at.first).find((x, i) => i % at.inputs === 0 && x.dtype !== dtype)
    if (odd) fail(`the parameters of one update must have one dtype, here ${dtype}`, odd)
    return attrs.lrScales.flatMap((_, n) =>
      inferOne(attrs, inputs.slice(at.first + n * at.inputs, at.first + (n + 1) * at.inputs)),
    )
  },
  vjp: 'built-in update rules have no derivative; write the optimizer as a TypeScript function of tensors to differentiate through it',
  batch() {
    throw new SteepestError('NO_DERIVATIVE', {
      who: 'update',
      rule: 'an update rule cannot be mapped over a batch of parameters',
      fix: 'Stack the parameters and update the stacked tensor: rules that work element by element do the same to it',
    })
  },
  updates(attrs) {
    const at = updateLayout(attrs)
    // The gradient is the one operand of a parameter that nothing takes the place of.
    return attrs.lrScales.flatMap((_, n) =>
      Array.from(
        { length: at.outputs },
        (_, i) => [n * at.outputs + i, at.first + n * at.inputs + (i === 0 ? 0 : i + 1)] as const,
      ),
    )
  },
  flops(_, outputs, attrs) {
    const each = updateLayout(attrs).outputs
    const elements = outputs.reduce((n, x, i) => n + (i % each === 0 ? sizeOfShape(x) : 0), 0)
    return elements * (4 + 6 * ruleNamed(attrs.rule).slots.length)
  },
})

/** Operands and options of one update. */
export interface UpdateOperands {
  /** The weight: float32, bfloat16 or float64. */
  readonly param: Tensor
  /** Its gradient: of the same shape; float32 or bfloat16 for a bfloat16 weight, else of the weight's dtype. */
  readonly grad: Tensor
  /** float64 [k]: learning rate, step count from 1; more may follow. */
  readonly args: Tensor
  /**
   * The rule's states in its order: float32 (float64 for a float64 weight), of the weight's shape. Where they are kept in eight bits, of each
   * its codes and its units.
   */
  readonly slots: readonly Tensor[]
  /** Scalar that multiplies the gradient. */
  readonly scale?: Tensor
  /** int32 [2]: rounds a bfloat16 weight stochastically; one key may serve all steps and all sites. */
  readonly key?: Tensor
  /** uint8 [2, …shape]: the low 16 bits of the float32 weight that a bfloat16 weight stands for (plane 0 the lower byte). */
  readonly low?: Tensor
}

/** Which rule an update follows, and how. */
export interface UpdateOptions {
  /** Name of the rule. */
  readonly rule: string
  /** Its hyper-parameters in its order; flags as 0 and 1. */
  readonly hyper: readonly number[]
  /** Multiplies the learning rate. Default 1. */
  readonly lrScale?: number
  /** Look for non-finite gradients first, and then change nothing and end the run. Default false. */
  readonly check?: boolean
  /** How the states are kept. Default `full`. */
  readonly states?: States
  /** Tells apart the parameters that share a key, in [0, 2^32). Default 0. */
  readonly site?: number
}

/**
 * One step of a built-in update rule on one parameter: `{ param, low, slots }`, new values of what was given.
 * @throws SteepestError where shapes or dtypes do not fit together
 */
export function update(
  operands: UpdateOperands,
  options: UpdateOptions,
): { param: Tensor; low?: Tensor; slots: Tensor[] } {
  const { param, grad, args, scale, key, low, slots } = operands
  const inputs = [args, ...(scale ? [scale] : []), ...(key ? [key] : []), param, grad, ...(low ? [low] : []), ...slots]
  const outputs = updateRow(inputs, {
    rule: options.rule,
    hyper: options.hyper,
    scale: scale !== undefined,
    check: options.check ?? false,
    rounding: key ? 'stochastic' : 'nearest',
    master: low !== undefined,
    states: options.states ?? 'full',
    lrScales: [options.lrScale ?? 1],
    sites: [options.site ?? 0],
  })
  return { param: outputs[0], low: low && outputs[1], slots: outputs.slice(low ? 2 : 1) }
}

/** Which norm: the root of the sum of squares, the sum of absolute values, or the largest of them. */
export type NormKind = 'l2' | 'l1' | 'max'

interface GlobalNormAttrs extends Record<string, string> {
  kind: NormKind
  /**
   * `pieces`: sums of squares of one tensor, float64 [pieces]; `join`: the norm from the pieces of all. Together they give the bits of `whole`,
   * and no tensor waits for another: the planner's way to a norm of gradients that are not all held.
   */
  stage: 'whole' | 'pieces' | 'join'
}

const globalNormRow = defineOp<GlobalNormAttrs>({
  name: 'globalNorm',
  kind: 'kernel',
  doc: 'The norm of all numbers of any number of tensors together, summed in float64 in a fixed order.',
  attrs: { kind: ['l2', 'l1', 'max'], stage: ['whole', 'pieces', 'join'] },
  infer(inputs, { stage }) {
    for (const x of inputs)
      if (!FLOATS.includes(x.dtype))
        throw new SteepestError('DTYPE', {
          who: 'globalNorm',
          rule: `tensors must be ${FLOATS.join(' or ')}`,
          got: showAval(x),
        })
    if (stage === 'pieces') return [normPieces(inputs[0])]
    const wide = stage === 'whole' && inputs.some((x) => x.dtype === 'float64')
    return [{ shape: [], dtype: wide ? 'float64' : 'float32' }]
  },
  vjp: 'the norm of gradients is not differentiated; use norm() of a tensor',
  batch() {
    throw new SteepestError('NO_DERIVATIVE', {
      who: 'globalNorm',
      rule: 'cannot be mapped',
      fix: 'Use norm() of each tensor',
    })
  },
  flops: (inputs) => 2 * inputs.reduce((n, x) => n + sizeOfShape(x), 0),
})

/**
 * The norm of all numbers of the tensors together: a scalar, float64 where any of them is float64, else float32.
 * Sums in float64 and rescales where squares would overflow or vanish; NaN or infinity anywhere gives a non-finite norm.
 */
export function globalNorm(tensors: readonly Tensor[], { kind = 'l2' }: { kind?: NormKind } = {}): Tensor {
  return globalNormRow(tensors, { kind, stage: 'whole' })[0]
}
