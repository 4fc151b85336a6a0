import { SteepestError } from '../errors.js'
import type { Graph } from '../graph/graph.js'
import { Context, withTensors } from '../nn/module.js'
import { allReduce } from '../ops/collective.js'
import { accumulate, assign, guard } from '../ops/control.js'
import { add, cast, div, minimum, mul } from '../ops/elementwise.js'
import { arange } from '../ops/assemble.js'
import { sum } from '../ops/reduce.js'
import { alias, expandDims, onesLike, placeholder, reshape, slice, zeros } from '../ops/shape.js'
import { sumsOf } from '../optim/base.js'
import { globalNorm, type Optimizer, type OptimizerState, type Outputs } from '../optim/index.js'
import { type Examples, type Objective, objectiveOf, type ObjectivePart } from '../optim/objective.js'
import type { Aval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { backwardOrZeros } from '../transform/backward.js'
import { scan } from '../transform/loop.js'
import { isFloat } from '../tensor/dtype.js'
import { closeOver, trace } from '../transform/trace.js'
import { flatten, mapTree } from '../transform/tree.js'
import type { Batch } from './host.js'

/** What a model must have to be trained. */
export interface Trainable {
  /**
   * The mean loss of a batch (a record of tensors by the names that the data gives them), or its weighted sum divided by `ctx.normalizer`
   * where that is given. `logits` and `losses` (of tasks) are for optimizers that look at them.
   */
  loss(batch: never, ctx: Context): Outputs
}

/**
 * The parts of a step: one micro-batch is `only`; several are `first`, some `middle`, and `last`, which updates. `whole` is all micro-batches
 * stacked, for an optimizer that evaluates the objective itself. `predict` evaluates, and gives the logits too.
 */
export type Part = 'only' | 'first' | 'middle' | 'last' | 'whole' | 'evaluate' | 'predict'

/** What a program of a step is made for. */
export interface StepSpec {
  readonly model: Trainable
  readonly optimizer: Optimizer
  /** Its tree, with the tensors that the paths of `slots` name. */
  readonly optimizerState: OptimizerState
  readonly parameters: Readonly<Record<string, Tensor>>
  readonly moduleState: Readonly<Record<string, Tensor>>
  readonly slots: Readonly<Record<string, Tensor>>
  /** Sums of gradients over micro-batches, by parameter. */
  readonly accumulators: Readonly<Record<string, Tensor>>
  /** Whether the optimizer needs less of some gradients than all. */
  readonly smallSums: boolean
  /** Names of the parameters that the optimizer moves. */
  readonly moved: readonly string[]
  readonly clip: number | null
  /** Processes that the rows of a step are shared among: gradients and losses are sums over all of them. */
  readonly processes: number
  /** Whether the weights to evaluate are others than those that are trained. */
  readonly evaluatesOther: boolean
  /** Whether what the model writes to its state is left out. */
  readonly keepsState: boolean
  /** What `predict` gives of the logits; all by default. */
  tell?: (logits: Tensor) => Tensor
}

/** Where the memory of an input comes from. */
export type InputKind =
  | readonly [kind: 'state', name: string]
  | readonly [kind: 'args']
  | readonly [kind: 'key']
  | readonly [kind: 'batch', name: string]
  | readonly [kind: 'capture', tensor: Tensor]
/** What an output is: state that it replaces, or a number that is read. */
export type OutputKind =
  | readonly [kind: 'state' | 'metric', name: string]
  | readonly [kind: 'loss' | 'gradNorm' | 'logits']

export interface StepGraph {
  readonly graph: Graph
  readonly inputs: readonly InputKind[]
  readonly outputs: readonly OutputKind[]
}

/** Numbers in the argument buffer of a step: learning rate, step, normalizer or share. */
export const ARGS = 3

const prefixed = (prefix: string, tensors: Readonly<Record<string, Tensor>>): [string, Tensor][] =>
  Object.entries(tensors).map(([k, t]) => [`${prefix}:${k}`, t])

/** The training state that a part reads, by the name that programs know it by. */
export function stateOf(spec: StepSpec, part: Part): Record<string, Tensor> {
  const updates = part === 'only' || part === 'last' || part === 'whole'
  const accumulates = part === 'first' || part === 'middle' || part === 'last'
  // What of a gradient is summed may be decided by states.
  const looks = accumulates && spec.smallSums
  return Object.fromEntries([
    ...prefixed('p', spec.parameters),
    ...prefixed('m', spec.moduleState),
    ...(updates || looks || ((part === 'evaluate' || part === 'predict') && spec.evaluatesOther)
      ? prefixed('s', spec.slots)
      : []),
    ...(accumulates ? prefixed('g', spec.accumulators) : []),
  ])
}

/** Builds the inputs and outputs of one program. */
class Tracer {
  readonly inputs: Tensor[] = []
  readonly inputKinds: InputKind[] = []
  readonly outputs: Tensor[] = []
  readonly outputKinds: OutputKind[] = []

  input(kind: InputKind, { shape, dtype }: Aval): Tensor {
    const t = placeholder({ shape, dtype })
    this.inputs.push(t)
    this.inputKinds.push(kind)
    return t
  }

  output(kind: OutputKind, t: Tensor): void {
    this.outputs.push(t)
    this.outputKinds.push(kind)
  }

  /** Tensors that the model makes of numbers while it is traced are inputs too. */
  get graph(): StepGraph {
    const { closed, captures } = closeOver({ inputs: this.inputs, outputs: this.outputs }, 0)
    return {
      graph: closed,
      inputs: [...this.inputKinds, ...captures.map((t): InputKind => ['capture', t])],
      outputs: this.outputKinds,
    }
  }
}

/** Whether a value is its state already, changed in its own memory. */
const isUpdateOf = ({ node, index }: Tensor, state: Tensor): boolean =>
  node.op.updates?.(node.attrs, node.inputs.length).some(([o, i]) => o === index && node.inputs[i] === state) ?? false

/** The graph of one part of a step on batches of this kind. */
export function traceStep(spec: StepSpec, part: Part, batch: Batch): StepGraph {
  const tracer = new Tracer()
  const state: Record<string, Tensor> = {}
  for (const [name, t] of Object.entries(stateOf(spec, part))) state[name] = tracer.input(['state', name], t)
  const of = (prefix: string, names: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
    Object.fromEntries(Object.keys(names).map((k) => [k, state[`${prefix}:${k}`]]))
  const params = of('p', spec.parameters)
  const moduleState = of('m', spec.moduleState)
  const micros = part === 'whole' ? Object.values(batch)[0].shape[0] : 1
  const args = tracer.input(['args'], { shape: [ARGS], dtype: 'float64' })
  const key = tracer.input(['key'], { shape: part === 'whole' ? [micros, 2] : [2], dtype: 'int32' })
  const { normalized, stop, ...data } = Object.fromEntries(
    Object.entries(batch).map(([k, v]) => [k, tracer.input(['batch', k], v)]),
  )
  const scalarArg = (i: number) => reshape(slice(args, [[i, i + 1]]), [])
  const together = spec.processes > 1
  const everywhere = (t: Tensor) => (together ? allReduce(t) : t)
  const context = (training: boolean, own: Record<string, Tensor>, ownKey: Tensor) =>
    new Context({
      training,
      key: ownKey,
      ids: own.ids,
      normalizer: normalized ? cast(scalarArg(2), 'float32') : undefined,
    })
  const stateTree = (): OptimizerState => {
    const flat = flatten(spec.optimizerState)
    return flat.unflatten(flat.paths.map((path) => state[`s:${path}`]))
  }
  const write = (written: (name: string) => Tensor | undefined) => {
    for (const [k, t] of Object.entries(moduleState)) {
      const value = written(k)
      if (!value || spec.keepsState) continue
      // Each process has seen other rows; what a state learned of them is the mean.
      const mean = together && isFloat(value.dtype) ? mul(allReduce(value), 1 / spec.processes) : value
      tracer.output(['state', `m:${k}`], isUpdateOf(value, t) ? value : assign(t, cast(mean, t.dtype)))
    }
  }
  const report = (reports: Readonly<Record<string, Tensor>>) => {
    for (const [name, value] of Object.entries(reports)) tracer.output(['metric', name], value)
  }
  /** What stays as it was stays where it is. */
  const changed = (next: OptimizerState) => {
    const after = flatten(next)
    after.tensors.forEach((t, i) => {
      const name = `s:${after.paths[i]}`
      if (t !== state[name]) tracer.output(['state', name], t)
    })
  }
  const updated = (next: { params: Record<string, Tensor>; state: OptimizerState }) => {
    for (const k of spec.moved) tracer.output(['state', `p:${k}`], next.params[k])
    changed(next.state)
  }
  /** What the gradients are to be multiplied by; their norm is put out. */
  const scaleOf = (grads: unknown): Tensor | undefined => {
    if (spec.clip === null) return undefined
    const norm = guard(globalNorm(flatten(grads).tensors))
    tracer.output(['gradNorm'], norm)
    return cast(minimum(div(spec.clip, add(norm, 1e-6)), 1), 'float32')
  }

  if (part === 'evaluate' || part === 'predict') {
    const used = spec.evaluatesOther ? spec.optimizer.evalParams(params, stateTree()) : params
    const model = withTensors(spec.model, { ...used, ...moduleState })
    const { loss, logits } = model.loss(data as never, context(false, data, key))
    tracer.output(['loss'], loss)
    if (part === 'predict') {
      if (!logits) {
        throw new SteepestError('ARGUMENT', {
          who: 'train',
          rule: 'measures other than the loss need logits, and the model gives none',
          fix: 'Return { loss, logits } from its `loss`',
        })
      }
      const told = spec.tell ? spec.tell(logits) : logits
      tracer.output(['logits'], cast(told, told.dtype === 'float64' ? 'float64' : 'float32'))
    }
    return tracer.graph
  }

  if (part === 'whole') {
    const told: Told = { writes: {}, reports: {} }
    const objective = stepObjective({
      spec,
      micros,
      moduleState,
      data,
      keys: key,
      share: normalized ? undefined : scalarArg(2),
      context: (own, ownKey) => context(true, own, ownKey),
      told,
    })
    const next = spec.optimizer.step!(objective, params, stateTree(), {
      args,
      key: objective.key,
      check: spec.clip === null,
      scaleOf,
      clipNorm: spec.clip ?? undefined,
    })
    tracer.output(['loss'], next.loss)
    updated(next)
    write((k) => told.writes[k])
    report({ ...told.reports, ...next.metrics })
    return tracer.graph
  }

  const ctx = context(true, data, key)
  const model = withTensors(spec.model, { ...params, ...moduleState })
  const own = model.loss(data as never, ctx).loss
  // A micro-batch that is its own mean counts by its share of the step's rows.
  const loss = (part !== 'only' || together) && !normalized ? mul(own, cast(scalarArg(2), own.dtype)) : own
  tracer.output(['loss'], guard(everywhere(loss)))
  // How many processes want the run to end: all of them learn it at the same step.
  if (stop) tracer.output(['metric', 'stop'], allReduce(sum(stop)))
  const names = spec.moved
  const all = backwardOrZeros([loss], [onesLike(loss)], [...names.map((k) => params[k]), ...ctx.probes])
  const grads = all.slice(0, names.length)
  ctx.settle(all.slice(names.length))
  const sumOf = (k: string) => state[`g:${k}`]
  const byName = Object.fromEntries(names.map((k, i) => [k, grads[i]]))
  const sums = part !== 'only' && spec.smallSums ? sumsOf(spec.optimizer) : undefined
  const before = part === 'only' || part === 'last' || sums ? stateTree() : spec.optimizerState
  if (part === 'first') {
    const begun = sums?.begin(params, byName, before, { args, key })
    for (const k of names) {
      const value = begun?.sums[k] ?? byName[k]
      tracer.output(['state', `g:${k}`], assign(sumOf(k), cast(value, sumOf(k).dtype)))
    }
    if (begun) changed(begun.state)
  } else {
    const own = { ...byName, ...sums?.more(params, byName, before) }
    if (part === 'middle') {
      for (const k of names) tracer.output(['state', `g:${k}`], accumulate(sumOf(k), own[k]))
    } else {
      // In the place of the sum: all gradients are there once.
      const whole = (k: string) => (part === 'last' ? accumulate(sumOf(k), own[k]) : own[k])
      const all = Object.fromEntries(names.map((k) => [k, everywhere(whole(k))]))
      const scale = scaleOf(all)
      const how = { args, scale, key, check: spec.clip === null }
      updated(sums ? sums.update(params, all, before, how) : spec.optimizer.update(params, all, before, how))
    }
  }
  write((k) => ctx.writes.get(moduleState[k]))
  report(Object.fromEntries(ctx.reports))
  return tracer.graph
}

/** What a model says beside its outputs. */
interface Told {
  /** New values of its state, by name. */
  writes: Record<string, Tensor>
  /** Numbers of the step, by name. */
  reports: Record<string, Tensor>
}

interface ObjectiveParts {
  spec: StepSpec
  micros: number
  moduleState: Readonly<Record<string, Tensor>>
  /** The micro-batches, stacked. */
  data: Readonly<Record<string, Tensor>>
  /** int32 [micro-batches, 2] */
  keys: Tensor
  /** What the loss of a micro-batch counts for, where the model does not divide by the weight of the step. */
  share: Tensor | undefined
  context: (data: Record<string, Tensor>, key: Tensor) => Context
  /** Receives what the model writes to its state and reports: the first evaluation counts, and no other. */
  told: Told
}

/** The error of a model whose examples are not apart from each other. */
const examplesMeet = (states: readonly string[]): SteepestError =>
  new SteepestError('ARGUMENT', {
    who: 'train',
    rule: 'the model takes statistics of whole batches, so one example has no gradient of its own',
    got: states.join(', '),
    fix: 'Compare micro-batches: adaptiveBatch(base, { estimator: "microBatches" })',
  })

/** The loss of a step over its micro-batches, one of which is in memory at a time. */
function stepObjective(parts: ObjectiveParts): Objective<Record<string, Tensor>> {
  const { spec, micros, moduleState, data, keys, share, context, told } = parts
  const names = Object.keys(moduleState)
  /** `first` takes what the first evaluation tells, which also ends the run where its loss is not finite. */
  const partOf = (
    own: Record<string, Tensor>,
    key: Tensor,
    held: Readonly<Record<string, Tensor>>,
    first?: (told: Told) => void,
  ): ObjectivePart<Record<string, Tensor>> => {
    let evaluated = first === undefined
    const scaled = (t: Tensor) => (share ? mul(t, cast(share, t.dtype)) : t)
    const evaluate = (params: Record<string, Tensor>) => {
      const ctx = context(own, key)
      const out = withTensors(spec.model, { ...spec.parameters, ...params, ...held }).loss(own as never, ctx)
      const loss = evaluated ? scaled(out.loss) : guard(scaled(out.loss))
      const losses = out.losses && Object.fromEntries(Object.entries(out.losses).map(([k, t]) => [k, scaled(t)]))
      return { ctx, out: { ...out, loss, losses } }
    }
    const tell = (ctx: Context) => {
      const writes = names.flatMap((k) => (ctx.writes.has(held[k]) ? [[k, ctx.writes.get(held[k])!]] : []))
      if (!evaluated) first?.({ writes: Object.fromEntries(writes), reports: Object.fromEntries(ctx.reports) })
      evaluated = true
    }
    const outputs = (params: Record<string, Tensor>): Outputs => {
      const { ctx, out } = evaluate(params)
      tell(ctx)
      return out
    }
    const valueAndGrad = (params: Record<string, Tensor>) => {
      const flat = flatten(params)
      const inputs = flat.tensors.map((t) => alias(t))
      const { ctx, out } = evaluate(flat.unflatten(inputs))
      const probes = evaluated ? [] : ctx.probes
      const all = backwardOrZeros([out.loss], [onesLike(out.loss)], [...inputs, ...probes])
      if (!evaluated) ctx.settle(all.slice(inputs.length))
      tell(ctx)
      return { loss: out.loss, grads: flat.unflatten(all.slice(0, inputs.length)) }
    }
    const count = Object.values(own)[0]?.shape[0] ?? 0
    const examples: Examples<Record<string, Tensor>> = {
      count,
      // Random numbers belong to examples, so that each draws what it draws within the batch.
      batch: own.ids ? own : { ...own, ids: arange(count) },
      loss(params, example) {
        const one = mapTree(example as Record<string, Tensor>, (t) => expandDims(t, 0))
        const ctx = context(one, key)
        const model = withTensors(spec.model, { ...spec.parameters, ...params, ...held })
        const { loss } = model.loss(one as never, ctx)
        if (ctx.writes.size > 0) throw examplesMeet(names.filter((k) => ctx.writes.has(held[k])))
        return share ? div(scaled(loss), count) : loss
      },
    }
    const part = { outputs, loss: (params: Record<string, Tensor>) => outputs(params).loss, valueAndGrad, examples }
    return { ...part, key, share: 1 / micros }
  }
  const at = (t: Tensor, i: number): Tensor => {
    const [, ...rest] = t.shape
    return reshape(slice(t, [[i, i + 1]]), rest)
  }
  const one = (i: number) => Object.fromEntries(Object.entries(data).map(([k, t]) => [k, at(t, i)]))
  let fresh = true

  const total = <R>(f: (part: ObjectivePart<Record<string, Tensor>>) => R): R => {
    const first = fresh
    fresh = false
    if (micros === 1) {
      const tell = first ? (now: Told) => void Object.assign(told, now) : undefined
      return f(partOf(one(0), at(keys, 0), moduleState, tell))
    }
    // What comes out is known only from a trace, whose nodes nobody uses.
    const reported = new Map<string, Tensor>()
    const note = (now: Told) => {
      for (const [k, t] of Object.entries(now.reports)) reported.set(k, t)
    }
    const shapes = trace(
      'objective',
      () => f(partOf(one(0), at(keys, 0), moduleState, first ? note : undefined)),
      [],
    ).out
    const zero = shapes.unflatten(shapes.tensors.map((t) => zeros(t.shape, t.dtype)))
    const nothing = Object.fromEntries([...reported].map(([k, t]) => [k, zeros(t.shape, t.dtype)]))
    const { carry } = scan(
      (
        { sum, held, reports }: { sum: R; held: Record<string, Tensor>; reports: Record<string, Tensor> },
        x: { own: Record<string, Tensor>; key: Tensor },
      ) => {
        const next = { held: { ...held }, reports: { ...reports } }
        const tell = (now: Told) => {
          for (const [k, t] of Object.entries(now.writes)) next.held[k] = cast(t, held[k].dtype)
          for (const [k, t] of Object.entries(now.reports)) next.reports[k] = add(reports[k], t)
        }
        const { tensors } = flatten(f(partOf(x.own, x.key, held, first ? tell : undefined)))
        let i = 0
        return { carry: { sum: mapTree(sum, (t) => add(t, tensors[i++])), ...next }, y: null }
      },
      { sum: zero, held: { ...moduleState }, reports: nothing },
      { own: { ...data }, key: keys },
    )
    if (first) Object.assign(told, { writes: carry.held, reports: carry.reports })
    return carry.sum
  }
  return objectiveOf(total, at(keys, 0))
}

/** The weights to use of one parameter, where they are others than those that are trained. */
export function traceEvalParam(spec: StepSpec, name: string): StepGraph {
  const tracer = new Tracer()
  const input = (key: string, t: Tensor) => tracer.input(['state', key], t)
  const p = input(`p:${name}`, spec.parameters[name])
  const own: Record<string, Record<string, Tensor>> = {}
  for (const [slot, by] of Object.entries(spec.optimizerState.slots)) {
    own[slot] = by[name] ? { [name]: input(`s:slots.${slot}.${name}`, by[name]) } : {}
  }
  const step = input('s:step', spec.optimizerState.step)
  const used = spec.optimizer.evalParams({ [name]: p }, { step, slots: own })[name]
  tracer.output(['state', `p:${name}`], used === p ? p : used)
  return tracer.graph
}
