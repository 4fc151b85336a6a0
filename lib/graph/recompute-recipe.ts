import { opNamed } from '../ops/define.js'
import type { MatmulAttrs } from '../ops/matmul.js'
import { dtypeCode } from '../tensor/dtype.js'
import { type Instruction, isWhole, type Operand } from './instruction.js'
import { ELEMENTWISE } from './table.gen.js'

const WORDS = 6

/** An elementwise chain that gives only one of its outputs, with the steps and operands that this one needs. */
function chainFor(i: Instruction, output: number): Omit<Instruction, 'workspace'> {
  const code = i.attrs.code as readonly number[]
  const constants = i.attrs.constants as readonly number[]
  const register = (i.attrs.outputs as readonly number[])[output]
  const fixed = i.inputs.length + constants.length
  const steps = new Set<number>()
  const used = new Set<number>()
  const stack = [register]
  while (stack.length > 0) {
    const at = stack.pop()!
    if (used.has(at)) continue
    used.add(at)
    if (at < fixed) continue
    steps.add(at - fixed)
    const from = (at - fixed) * WORDS
    for (const source of code.slice(from + 3, from + WORDS)) if (source >= 0) stack.push(source)
  }
  const moved = new Map<number, number>([[-1, -1]])
  const keep = (from: number, to: number) => {
    for (let r = from; r < to; r++) if (used.has(r)) moved.set(r, moved.size - 1)
  }
  keep(0, i.inputs.length)
  keep(i.inputs.length, fixed)
  keep(fixed, fixed + code.length / WORDS)
  const kept = [...steps].sort((a, b) => a - b)
  return {
    ...i,
    attrs: {
      ...i.attrs,
      constants: constants.filter((_, c) => used.has(i.inputs.length + c)),
      code: kept.flatMap((s) => {
        const words = code.slice(s * WORDS, (s + 1) * WORDS)
        return [...words.slice(0, 3), ...words.slice(3).map((r) => moved.get(r)!)]
      }),
      outputs: [moved.get(register)!],
    },
    inputs: i.inputs.filter((_, n) => used.has(n)),
    outputs: [i.outputs[output]],
  }
}

/** The activation of a product that also gives what comes before it. */
function activationOf(i: Instruction): Omit<Instruction, 'workspace'> | undefined {
  const { activation, outDtype } = i.attrs as unknown as MatmulAttrs
  const [y, z] = i.outputs
  // A bfloat16 activation is computed from the sum that is not rounded yet.
  if (outDtype === 'bfloat16' || !isWhole(y) || !isWhole(z)) return undefined
  const dtype = dtypeCode(outDtype)
  const code = [ELEMENTWISE.indexOf(activation), dtype, dtype, 0, -1, -1]
  const attrs = { constants: [], code, outputs: [1], shape: [...y.shape] }
  return { op: opNamed('elementwise'), attrs, inputs: [z], outputs: [y], scope: i.scope, again: true }
}

/** Whether running an instruction once more gives the same numbers and changes nothing. */
function canRepeat({ op, outputs }: Instruction): boolean {
  const holdsBody = Object.values(op.attrs).includes('graph')
  return !op.impure && !op.updates && !holdsBody && outputs.every((o) => o.buf.space === 'arena')
}

/** A way to compute one value again, to the same bits. */
export interface Way {
  readonly instruction: Omit<Instruction, 'workspace'>
  /** Which of its outputs is the value. */
  readonly output: number
  /** It reads another output of the instruction that made the value. */
  readonly beside: boolean
  /**
   * What is left of the instruction that made the value where nobody reads that before it is computed again: null for nothing. Absent where
   * the instruction cannot do without the output.
   */
  readonly rest?: Omit<Instruction, 'workspace'> | null
}

const GRADIENTS = ['dx', 'dweight', 'dbias'] as const

/** The ops that give gradients of a linear layer with its cross-entropy, and how many outputs come before these. */
const LINEAR_LOSSES: Readonly<Record<string, number>> = {
  linearCrossEntropyBackward: 0,
  linearCrossEntropyWithGradients: 2,
}

/**
 * One of the gradients of a linear layer with its cross-entropy, and the others without it: each computes the logits for itself. Only
 * where the cut of the work, and with it the order of sums, does not depend on which are asked for.
 */
function gradientFor(i: Instruction, output: number): Way | undefined {
  const before = LINEAR_LOSSES[i.op.name]
  if (before === undefined || output < before || i.outputs.length < 2) return undefined
  if (before === 0 && i.inputs[0].dtype === 'bfloat16') return undefined
  const asked = GRADIENTS.filter((name) => i.attrs[name])
  const only = (names: readonly string[]) => ({
    ...i,
    attrs: { ...i.attrs, ...Object.fromEntries(GRADIENTS.map((name) => [name, names.includes(name)])) },
    outputs: i.outputs.filter((_, o) => o < before || names.includes(asked[o - before])),
  })
  const own = asked[output - before]
  return {
    instruction: { ...only([own]), again: true },
    output: before,
    beside: false,
    rest: only(asked.filter((name) => name !== own)),
  }
}

/** How output `output` of an instruction is computed again: the quickest way that needs no more memory than there has to be. */
export function wayTo(i: Instruction, output: number): Way | undefined {
  const value: Operand = i.outputs[output]
  if (value.buf.space !== 'arena') return undefined
  if (i.op.name === 'elementwise')
    return {
      instruction: { ...chainFor(i, output), again: true },
      output: 0,
      beside: false,
      rest: i.outputs.length === 1 ? null : undefined,
    }
  if (!canRepeat(i)) return undefined
  if (i.op.name === 'matmul' && i.attrs.preactivation) {
    if (output === 1) {
      const attrs = { ...i.attrs, activation: 'none', preactivation: false }
      return { instruction: { ...i, attrs, outputs: [value], again: true }, output: 0, beside: false }
    }
    const activation = activationOf(i)
    if (activation) return { instruction: activation, output: 0, beside: true }
  }
  const rest = i.outputs.length === 1 ? null : undefined
  return gradientFor(i, output) ?? { instruction: { ...i, again: true }, output, beside: false, rest }
}
