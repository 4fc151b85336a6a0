import { native, type NativeArena, type NativeBuffer } from '../addon.js'
import { hash32 } from '../data/permutation.js'
import { SteepestError } from '../errors.js'
import { evaluate, pendingOf, settled } from '../graph/evaluate.js'
import { build, type Executable, FaultError, Queue } from '../graph/executable.js'
import type { Graph } from '../graph/graph.js'
import { Context, namedTensors, withTensors } from '../nn/module.js'
import type { Optimizer, OptimizerState } from '../optim/index.js'
import { globalNorm } from '../optim/index.js'
import { accumulate, assign, guard } from '../ops/control.js'
import { cast, div, minimum, mul } from '../ops/elementwise.js'
import { add } from '../ops/elementwise.js'
import { onesLike, placeholder, reshape, slice } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { backwardOrZeros } from '../transform/backward.js'
import { inTrace } from '../transform/trace.js'
import { flatten } from '../transform/tree.js'
import { avalBytes, type Batch, HostArray, signature } from './host.js'

/** What a model must have to be trained. */
export interface Trainable {
  /** The mean loss of a batch (a record of tensors by the names that the data gives them), or its weighted sum divided by `ctx.normalizer` where that is given. */
  loss(batch: never, ctx: Context): { loss: Tensor }
}

export interface TrainerOptions {
  optimizer: Optimizer
  /** Largest norm of the whole gradient; null: gradients are not held, and each tensor is updated as soon as its gradient is there. */
  clip?: number | null
  seed?: number
  /** Plans and checks, but computes nothing. */
  device?: 'cpu' | 'null'
}

/** What changes from step to step. */
export interface StepArgs {
  lr: number
  /** Counted from 1. */
  step: number
  /** Weight of the labels of all micro-batches, where the model divides by it; absent: each micro-batch is its own mean, and counts by its rows. */
  normalizer?: number
  /** Train on although the step before ended at a non-finite number (and so changed nothing). */
  unchained?: boolean
}

/** Numbers of a step. */
export interface StepResult {
  loss: number
  /** NaN where the gradient is never held as a whole. */
  gradNorm: number
}

/** The parts of a step: one micro-batch is `only`; several are `first`, some `middle`, and `last`, which updates. */
type Part = 'only' | 'first' | 'middle' | 'last' | 'evaluate'

interface Compiled {
  executable: Executable
  /** Inputs by where their memory comes from; positions are externals. */
  inputs: readonly (
    | readonly [kind: 'state', name: string]
    | readonly [kind: 'args' | 'key']
    | readonly [kind: 'batch', name: string]
  )[]
  /** Outputs: state tensors that they replace, or numbers that are read. */
  outputs: readonly (readonly [kind: 'state', name: string] | readonly [kind: 'loss' | 'gradNorm'])[]
}

/** Buffers of one prepared run: what is written before it and read after it. */
interface Slot {
  buffers: Map<number, NativeBuffer>
  args: NativeBuffer
  key: NativeBuffer
  ticket: number
}

const MARK = new HostArray(Uint8Array.of(1))
/** A batch whose model divides by the weight of the step, where there is one: the mark is part of what a program is compiled for. */
const normalizedBy = (batch: Batch, normalizer: number | undefined): Batch =>
  normalizer === undefined || batch.normalized ? batch : { ...batch, normalized: MARK }

/** @internal The random key of a micro-batch: no two of a run have the same. */
export const stepKey = (seed: number, step: number, micro: number): Int32Array =>
  Int32Array.of(hash32(1, seed, step, micro), hash32(2, seed, step, micro))

const ARGS = 3
/** Steps that may be under way at once; each has its own staging for batch and numbers. */
const RING = 3

/**
 * Trains a model step by step: compiles one program per batch signature, keeps all training state in native memory and updates it in place.
 * Steps are queued and run on native threads; the event loop stays free.
 */
export class Trainer {
  readonly parameters: Record<string, Tensor>
  readonly moduleState: Record<string, Tensor>
  /** Optimizer slots by path. */
  readonly slots: Record<string, Tensor>
  readonly queue: Queue
  readonly arena: NativeArena
  readonly optimizer: Optimizer
  private readonly optimizerState: OptimizerState
  private readonly clip: number | null
  private readonly seed: number
  private readonly device: 'cpu' | 'null'
  private readonly accumulators: Record<string, Tensor> = {}
  private readonly programs = new Map<string, Compiled>()
  private readonly rings = new Map<string, { slots: Slot[]; next: number }>()
  private readonly memory = new Map<string, NativeBuffer>()
  private readonly spare = new Map<string, NativeBuffer>()

  constructor(
    readonly model: Trainable,
    options: TrainerOptions,
  ) {
    const { parameters, state } = namedTensors(model)
    if (Object.keys(parameters).length === 0) {
      throw new SteepestError('ARGUMENT', {
        who: 'train',
        rule: 'the model has no float tensors as fields, so there is nothing to train',
      })
    }
    this.parameters = parameters
    this.moduleState = state
    this.optimizer = options.optimizer
    this.clip = options.clip === undefined ? 1 : options.clip
    this.seed = options.seed ?? 0
    this.device = options.device ?? 'cpu'
    this.optimizerState = inTrace(() => this.optimizer.init(parameters))
    const flat = flatten(this.optimizerState)
    this.slots = Object.fromEntries(flat.tensors.map((t, i) => [flat.paths[i], t]))
    this.queue = new Queue()
    this.arena = new (native().Arena)()
  }

  /** All state tensors by the name that programs know them by. */
  private stateTensors(part: Part): Record<string, Tensor> {
    const all: Record<string, Tensor> = {}
    for (const [k, t] of Object.entries(this.parameters)) all[`p:${k}`] = t
    for (const [k, t] of Object.entries(this.moduleState)) all[`m:${k}`] = t
    if (part === 'only' || part === 'last') for (const [k, t] of Object.entries(this.slots)) all[`s:${k}`] = t
    if (part !== 'only' && part !== 'evaluate')
      for (const [k, t] of Object.entries(this.accumulators)) all[`g:${k}`] = t
    return all
  }

  /** Computes what initializers have left to do; training state is in native memory afterwards. */
  async materialize(): Promise<void> {
    const all = [...Object.values(this.parameters), ...Object.values(this.moduleState), ...Object.values(this.slots)]
    const fresh = all.filter((t) => t.storage === undefined)
    if (fresh.length > 0) evaluate(fresh)
    await settled(all)
    for (const part of ['only', 'first'] as const) {
      for (const [name, t] of Object.entries(this.stateTensors(part)))
        if (t.storage) this.memory.set(name, pendingOf(t).buffer)
    }
  }

  /** The graph of one part of a step. */
  private trace(part: Part, batch: Batch): { graph: Graph; inputs: Compiled['inputs']; outputs: Compiled['outputs'] } {
    const inputs: Tensor[] = []
    const inputKinds: Compiled['inputs'][number][] = []
    const input = (kind: Compiled['inputs'][number], aval: { shape: readonly number[]; dtype: DType }): Tensor => {
      const t = placeholder(aval)
      inputs.push(t)
      inputKinds.push(kind)
      return t
    }
    const state: Record<string, Tensor> = {}
    for (const [name, t] of Object.entries(this.stateTensors(part))) state[name] = input(['state', name], t)
    const args = input(['args'], { shape: [ARGS], dtype: 'float64' })
    const key = input(['key'], { shape: [2], dtype: 'int32' })
    const data = Object.fromEntries(Object.entries(batch).map(([k, v]) => [k, input(['batch', k], v)]))
    const outputs: Tensor[] = []
    const outputKinds: Compiled['outputs'][number][] = []
    const output = (kind: Compiled['outputs'][number], t: Tensor) => {
      outputs.push(t)
      outputKinds.push(kind)
    }

    const { normalized, ...rest } = data
    const scalarArg = (i: number) => reshape(slice(args, [[i, i + 1]]), [])
    const training = part !== 'evaluate'
    const ctx = new Context({
      training,
      key,
      ids: data.ids,
      normalizer: normalized ? cast(scalarArg(2), 'float32') : undefined,
    })
    const named: Record<string, Tensor> = {}
    for (const k of Object.keys(this.parameters)) named[k] = state[`p:${k}`]
    for (const k of Object.keys(this.moduleState)) named[k] = state[`m:${k}`]
    const model = withTensors(this.model, named)
    const own = model.loss(rest as never, ctx).loss
    // A micro-batch that is its own mean counts by its share of the step's rows.
    const raw = training && part !== 'only' && !normalized ? mul(own, cast(scalarArg(2), own.dtype)) : own
    const loss = training ? guard(raw) : raw
    output(['loss'], loss)
    if (training) {
      const names = Object.keys(this.parameters)
      const params = names.map((k) => named[k])
      let grads = backwardOrZeros([loss], [onesLike(loss)], params)
      if (part === 'first') {
        names.forEach((k, i) =>
          output(['state', `g:${k}`], assign(state[`g:${k}`], cast(grads[i], state[`g:${k}`].dtype))),
        )
      } else if (part === 'middle') {
        names.forEach((k, i) => output(['state', `g:${k}`], accumulate(state[`g:${k}`], grads[i])))
      } else {
        if (part === 'last')
          grads = grads.map((g, i) => add(state[`g:${names[i]}`], cast(g, state[`g:${names[i]}`].dtype)))
        this.traceUpdate(names, params, grads, state, args, key, output)
      }
      for (const [k, t] of Object.entries(this.moduleState)) {
        const written = ctx.writes.get(named[k])
        if (written) output(['state', `m:${k}`], assign(named[k], cast(written, t.dtype)))
      }
    }
    return { graph: { inputs, outputs }, inputs: inputKinds, outputs: outputKinds }
  }

  private traceUpdate(
    names: readonly string[],
    params: readonly Tensor[],
    grads: readonly Tensor[],
    state: Record<string, Tensor>,
    args: Tensor,
    key: Tensor,
    output: (kind: Compiled['outputs'][number], t: Tensor) => void,
  ): void {
    let scale: Tensor | undefined
    if (this.clip !== null) {
      const norm = guard(globalNorm(grads))
      output(['gradNorm'], norm)
      scale = cast(minimum(div(this.clip, add(norm, 1e-6)), 1), 'float32')
    }
    const record = (tensors: readonly Tensor[]) => Object.fromEntries(names.map((k, i) => [k, tensors[i]]))
    const flat = flatten(this.optimizerState)
    const slots = flat.unflatten(flat.paths.map((path) => state[`s:${path}`]))
    const next = this.optimizer.update(record(params), record(grads), slots, {
      args,
      scale,
      key,
      check: this.clip === null,
    })
    for (const [k, t] of Object.entries(next.params)) output(['state', `p:${k}`], t)
    const after = flatten(next.state)
    after.tensors.forEach((t, i) => output(['state', `s:${after.paths[i]}`], t))
  }

  private compiled(part: Part, batch: Batch): [Compiled, string] {
    const key = `${part} ${signature(batch)}`
    let known = this.programs.get(key)
    if (!known) {
      const { graph, inputs, outputs } = inTrace(() => this.trace(part, batch))
      const donated = new Set<number>()
      inputs.forEach(([kind], i) => {
        if (kind === 'state') donated.add(i)
      })
      known = { executable: build(graph, donated, this.device), inputs, outputs }
      this.programs.set(key, known)
    }
    return [known, key]
  }

  /** The plan of a step on batches of this kind, without running it. */
  plan(given: Batch, microBatches = 1, weighted = false): Executable['plan'][] {
    const batch = normalizedBy(given, weighted ? 1 : undefined)
    this.prepareAccumulators(microBatches)
    const parts: Part[] =
      microBatches === 1 ? ['only'] : microBatches === 2 ? ['first', 'last'] : ['first', 'middle', 'last']
    return parts.map((part) => this.compiled(part, batch)[0].executable.plan)
  }

  private prepareAccumulators(microBatches: number): void {
    if (microBatches === 1 || Object.keys(this.accumulators).length > 0) return
    for (const [k, t] of Object.entries(this.parameters)) {
      this.accumulators[k] = placeholder({ shape: t.shape, dtype: t.dtype === 'float64' ? 'float64' : 'float32' })
    }
  }

  private async slotFor(key: string, compiled: Compiled): Promise<Slot> {
    let ring = this.rings.get(key)
    if (!ring) this.rings.set(key, (ring = { slots: [], next: 0 }))
    if (ring.slots.length < RING) {
      const { Buffer } = native()
      const slot: Slot = { buffers: new Map(), args: new Buffer(ARGS * 8), key: new Buffer(8), ticket: 0 }
      compiled.executable.plan.externals.forEach((buf, i) => {
        const kind = compiled.inputs[i]?.[0]
        if (kind === undefined || kind === 'batch') slot.buffers.set(i, new Buffer(buf.bytes))
      })
      ring.slots.push(slot)
      return slot
    }
    const slot = ring.slots[ring.next]
    ring.next = (ring.next + 1) % RING
    await this.queue.wait(slot.ticket).catch(() => undefined)
    return slot
  }

  private stateBuffer(name: string, bytes: number): NativeBuffer {
    let buffer = this.memory.get(name)
    if (!buffer) this.memory.set(name, (buffer = new (native().Buffer)(bytes)))
    return buffer
  }

  private async submit(
    part: Part,
    batch: Batch,
    args: StepArgs,
    micro: number,
    chained = true,
  ): Promise<() => Promise<StepResult>> {
    const [compiled, key] = this.compiled(part, batch)
    const slot = await this.slotFor(key, compiled)
    const { plan } = compiled.executable
    slot.args.write(Float64Array.of(args.lr, args.step, args.normalizer ?? 1))
    slot.key.write(stepKey(this.seed, args.step, micro))
    const bindings = plan.externals.map((buf, i) => {
      const input = compiled.inputs[i]
      if (!input || input[0] === 'batch') return slot.buffers.get(i)!
      if (input[0] === 'args') return slot.args
      if (input[0] === 'key') return slot.key
      return this.stateBuffer(input[1] as string, buf.bytes)
    })
    compiled.inputs.forEach((input, i) => {
      if (input[0] === 'batch') bindings[i].write(batch[input[1]].data)
    })
    compiled.outputs.forEach((kind, o) => {
      const at = plan.outputs[o]
      if (kind[0] !== 'state' || at < compiled.inputs.length) return
      // An update that could not be in place: the new value is written to the spare memory, which changes roles with the old.
      const spare = this.spare.get(kind[1]) ?? new (native().Buffer)(plan.externals[at].bytes)
      bindings[at] = spare
    })
    slot.ticket = this.queue.submit(compiled.executable, bindings, this.arena, {
      chained: part !== 'evaluate' && chained,
    })
    compiled.outputs.forEach((kind, o) => {
      const at = plan.outputs[o]
      if (kind[0] !== 'state' || at < compiled.inputs.length) return
      this.spare.set(kind[1], this.memory.get(kind[1])!)
      this.memory.set(kind[1], bindings[at])
    })
    const { ticket } = slot
    const number = (want: 'loss' | 'gradNorm'): number => {
      const o = compiled.outputs.findIndex(([kind]) => kind === want)
      if (o < 0) return Number.NaN
      const at = plan.outputs[o]
      const wide = plan.externals[at].bytes === 8
      const target = wide ? new Float64Array(1) : new Float32Array(1)
      bindings[at].read(target)
      return target[0]
    }
    return async () => {
      try {
        await this.queue.wait(ticket)
      } catch (error) {
        throw await this.explain(error, compiled, bindings)
      }
      return { loss: number('loss'), gradNorm: number('gradNorm') }
    }
  }

  /** A non-finite number is traced to the op and module that made it first; the state that the step began with is still there. */
  private async explain(error: unknown, compiled: Compiled, bindings: NativeBuffer[]): Promise<unknown> {
    if (!(error instanceof FaultError) || error.fault.kind !== 'nonFinite') return error
    const ticket = this.queue.submit(compiled.executable, bindings, this.arena, { trace: true })
    return this.queue.wait(ticket).then(
      () => error,
      (traced: unknown) => traced,
    )
  }

  /**
   * Queues one step over its micro-batches. Resolves when the step is queued (and staging was free); the function that it gives resolves
   * with the step's numbers when it is done.
   */
  async step(microBatches: readonly Batch[], args: StepArgs): Promise<() => Promise<StepResult>> {
    const count = microBatches.length
    this.prepareAccumulators(count)
    const waits: (() => Promise<StepResult>)[] = []
    const rows = microBatches.map((batch) => Object.values(batch)[0]?.shape[0] ?? 1)
    const allRows = rows.reduce((n, r) => n + r, 0)
    for (let i = 0; i < count; i++) {
      const part: Part = count === 1 ? 'only' : i === 0 ? 'first' : i === count - 1 ? 'last' : 'middle'
      const normalizer = args.normalizer ?? (count === 1 ? undefined : rows[i] / allRows)
      waits.push(
        await this.submit(
          part,
          normalizedBy(microBatches[i], args.normalizer),
          { ...args, normalizer },
          i,
          i > 0 || !args.unchained,
        ),
      )
    }
    return async () => {
      let loss = 0
      let gradNorm = Number.NaN
      for (const wait of waits) {
        const result = await wait()
        loss += result.loss
        gradNorm = result.gradNorm
      }
      return { loss, gradNorm }
    }
  }

  /** The loss of a batch in evaluation mode. */
  async evaluate(batch: Batch, normalizer?: number): Promise<number> {
    const wait = await this.submit('evaluate', normalizedBy(batch, normalizer), { lr: 0, step: 0, normalizer }, 0)
    return (await wait()).loss
  }

  /** Where the memory of a piece of training state is now. */
  buffer(name: string): NativeBuffer {
    const buffer = this.memory.get(name)
    if (!buffer) throw new SteepestError('ARGUMENT', { who: 'train', rule: 'no such training state', got: name })
    return buffer
  }

  /** Points the model's tensors at the memory that training left, so that the model can be used. */
  publish(): void {
    for (const [kind, tensors] of [
      ['p', this.parameters],
      ['m', this.moduleState],
    ] as const) {
      for (const [k, t] of Object.entries(tensors)) {
        // Nothing is there where the run ended before its first step.
        const buffer = this.memory.get(`${kind}:${k}`)
        if (buffer) t.storage = { buffer, bytes: avalBytes(t) }
      }
    }
  }

  close(): void {
    this.queue.close()
  }
}
