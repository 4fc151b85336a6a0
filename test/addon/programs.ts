import { native } from '../../lib/addon.js'
import { readAll } from '../../lib/graph/evaluate.js'
import { KERNELS } from '../../lib/graph/table.gen.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import * as optim from '../../lib/optim/index.js'
import * as ops from '../../lib/ops/index.js'
import type { DType } from '../../lib/tensor/dtype.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { Trainer } from '../../lib/train/trainer.js'
import { compile, cond, grad, scan, whileLoop } from '../../lib/transform/index.js'
import { revise } from '../../lib/transform/revise.js'
import { allCases, type OpCase } from '../ops/check.js'
import { lossOf } from '../ops/check-derivatives.js'
import { type FloatType, isSmooth, numbersOf, outputsOf, tensorOf } from '../ops/check-values.js'
import { random } from '../ops/differences.js'

/** A program as the addon gets it. */
export interface Recorded {
  words: Float64Array
  constants: Uint8Array
  threads: number
}

const { mul, sum } = ops
type Pair = { i: Tensor; x: Tensor }

/** The value of f and the gradients of Σ f². */
function withGradients(f: (...xs: Tensor[]) => Tensor, xs: readonly Tensor[]): Tensor[] {
  const loss = (...v: Tensor[]) => sum(ops.square(f(...v)))
  return [f(...xs), ...(grad(loss, { argnums: xs.map((_, i) => i) })(...xs) as unknown as Tensor[])]
}

/**
 * Of the cases of the op table one for every set of rows: its first arguments in every dtype, with its derivatives, and second derivatives in
 * float64.
 */
async function fromTable(): Promise<(() => Tensor[])[]> {
  const chosen = new Map<string, OpCase>()
  for (const { cases } of await allCases()) {
    for (const c of cases) if (!chosen.has(c.ops.join())) chosen.set(c.ops.join(), c)
  }
  return [...chosen.values()].flatMap((c) =>
    (['float64', ...(c.dtypes ?? ['float32', 'bfloat16'])] as FloatType[]).map((dtype) => () => {
      const [args] = c.at
      const inputs = args.map((a, i) => tensorOf(a, numbersOf(a, 31 + i, dtype), dtype))
      const smooth = args.flatMap((a, i) => (isSmooth(a) ? [i] : []))
      const outputs = [...outputsOf(c, inputs)]
      if (c.derivatives === 'none' || smooth.length === 0) return outputs
      const gradient = (xs: readonly Tensor[]): readonly Tensor[] =>
        grad((v: readonly Tensor[]) =>
          lossOf(
            outputsOf(
              c,
              inputs.map((t, i) => (smooth.includes(i) ? v[smooth.indexOf(i)] : t)),
            ),
          ),
        )(xs)
      const at = smooth.map((i) => inputs[i])
      const second =
        dtype === 'float64' && c.derivatives !== 'first'
          ? grad((xs: readonly Tensor[]) => sum(ops.square(gradient(xs)[0])))(at)
          : []
      return [...outputs, ...gradient(at), ...second]
    }),
  )
}

/** Chains of elementwise steps in every layout, and programs within programs. */
const computations: (() => Tensor[])[] = [
  ...(['float32', 'bfloat16', 'float64'] as DType[]).map(
    (dtype) => () =>
      withGradients(
        (a, b) => ops.gelu(ops.add(ops.exp(ops.transpose(a)), ops.flip(mul(a, b)))),
        [random([40, 40], 1, dtype), random([40], 2, dtype)],
      ),
  ),
  () => [
    ops.remainder(ops.cast(random([9], 1), 'int32'), 2),
    ops.where(ops.less(random([9], 1), 0), ops.cast(random([9], 2), 'uint8'), 3),
  ],
  () =>
    withGradients(
      (w) =>
        scan(
          (c: Tensor, x: Tensor) => ({ carry: ops.tanh(ops.add(mul(c, w), x)), y: c }),
          random([3], 1),
          random([4, 3], 2),
        ).ys,
      [random([3], 3)],
    ),
  () =>
    withGradients(
      (x) =>
        cond(
          ops.less(sum(x), 0),
          (v: Tensor) => ops.exp(v),
          (v: Tensor) => ops.sin(v),
          x,
        ),
      [random([4], 1)],
    ),
  () => [
    whileLoop(
      (c: Pair) => ops.less(c.i, 5),
      ({ i, x }: Pair) => ({ i: ops.add(i, 1), x: ops.sin(x) }),
      { i: ops.scalar(0, 'int32'), x: random([2], 1) },
    ).x,
  ],
  () =>
    compile((due: Tensor, x: Tensor, y: Tensor) => revise(due, [x], (state) => [mul(ops.sin(state), y)]), {
      donate: [1],
    })(ops.less(ops.scalar(0), 1), random([3], 1), random([3], 2)),
]

/** Two steps of a GPT-2 of one layer, alone and of two micro-batches, clipped. */
async function train(dtype: DType): Promise<void> {
  const model = new GPT2({ vocabSize: 11, context: 6, layers: 1, heads: 2, width: 8, dtype })
  const trainer = new Trainer(model, { optimizer: optim.adamw({ lr: 0.01 }), clip: 1 })
  await trainer.materialize()
  const data = Int32Array.from({ length: 12 }, (_, i) => (5 * i) % 11)
  const batch = {
    inputIds: { shape: [2, 6], dtype: 'int32' as DType, data },
    labels: { shape: [2, 6], dtype: 'int32' as DType, data },
  }
  for (const batches of [[batch], [batch, batch, batch]]) await (await trainer.step(batches, { lr: 0.01, step: 1 }))()
  trainer.close()
}

/** The programs that the addon is given by the computations above. */
export async function recordPrograms(): Promise<Recorded[]> {
  const addon = native()
  const { Program } = addon
  const recorded: Recorded[] = []
  addon.Program = class {
    constructor(words: Float64Array, constants: Uint8Array, threads: number, device?: 'cpu' | 'null') {
      recorded.push({ words: words.slice(), constants: constants.slice(), threads })
      // biome-ignore lint/correctness/noConstructorReturn: the addon takes nothing but its own objects
      return new Program(words, constants, threads, device)
    }
  } as typeof Program
  try {
    for (const compute of [...(await fromTable()), ...computations]) await readAll(compute())
    for (const dtype of ['float32', 'bfloat16'] as DType[]) await train(dtype)
  } finally {
    addon.Program = Program
  }
  return recorded
}

/** Names of the kernels that a program runs, bodies of loops and branches aside. */
export function kernelsOf({ words }: Recorded): string[] {
  let at = 2
  const externals = words[at++]
  at += 2 * externals + 1
  const names: string[] = []
  const count = words[at++]
  for (let i = 0; i < count; i++) {
    const [op, , , inputs, outputs, attrs] = words.subarray(at, at + 6)
    names.push(KERNELS[op])
    at += 6
    for (let k = 0; k < inputs + outputs; k++) at += 5 + 2 * words[at + 4]
    at += attrs
  }
  return names
}
