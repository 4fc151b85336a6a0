import { native, type NativeArena, type NativeBuffer } from '../addon.js'
import { hash32 } from '../data/permutation.js'
import { SteepestError } from '../errors.js'
import { evaluate, pendingOf, releaseScratch, settled } from '../graph/evaluate.js'
import { build, type Executable, FaultError, lowerGraph, Queue } from '../graph/executable.js'
import type { Lowered } from '../graph/instruction.js'
import type { PlanOptions } from '../graph/plan.js'
import type { Packed } from '../graph/recompute-pack.js'
import { namedTensors } from '../nn/module.js'
import { sumsOf } from '../optim/base.js'
import type { Optimizer } from '../optim/index.js'
import { placeholder } from '../ops/shape.js'
import type { Aval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { inTrace } from '../transform/trace.js'
import { flatten } from '../transform/tree.js'
import { avalBytes, type Batch, HostArray, signature, stacked } from './host.js'
import type { Processes } from './parallel.js'
import type { ProfiledProgram } from './profile.js'
import {
  ARGS,
  type InputKind,
  type Part,
  type StepGraph,
  type StepSpec,
  stateOf,
  type Trainable,
  traceEvalParam,
  traceStep,
} from './step-graph.js'

export type { Trainable } from './step-graph.js'

export interface TrainerOptions {
  optimizer: Optimizer
  /** Largest norm of the whole gradient; null: gradients are not held, and each tensor is updated as soon as its gradient is there. */
  clip?: number | null
  seed?: number
  /** Plans and checks, but computes nothing. */
  device?: 'null'
  /** Bytes that the arena is to fit into: values are computed again where that is needed, to the same numbers. 0: as few as possible. */
  arena?: number
  /** The processes that share the rows of every batch. Each gets its own share of them, and `normalizer` counts those of all. */
  processes?: Processes
  /** What activations are kept in between the passes: all of them, or, with `arena`, as many as it asks for. */
  activations?: Packed
  /** Leaves the model's state as it is, whatever the model writes to it: for a step that is only looked at. */
  keepsState?: boolean
}

/** What changes from step to step. */
export interface StepArgs {
  lr: number
  /** Counted from 1. */
  step: number
  /** Weight of the labels of all micro-batches, where the model divides by it; absent: each micro-batch is its own mean, and counts by its rows. */
  normalizer?: number
  /** Among several processes: that this one wants the run to end; the metric `stop` of the step says how many do. */
  stop?: boolean
  /** Train on although the step before ended at a non-finite number (and so changed nothing). */
  unchained?: boolean
}

/** Numbers of a step. */
export interface StepResult {
  loss: number
  /** NaN where the gradient is never held as a whole. */
  gradNorm: number
  /** What the model reports of the step (`ctx.report`), added up over micro-batches. */
  metrics: Record<string, number>
  /** What the model said of the batch, where that was asked for; float32, or float64 for a float64 model. */
  logits?: Float32Array | Float64Array
}

interface Compiled extends Omit<StepGraph, 'graph'> {
  executable: Executable
  logits?: Aval
  /** Runs that were timed. */
  timed: number
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

const donatedOf = (inputs: readonly InputKind[]): Set<number> =>
  new Set(inputs.flatMap(([kind], i) => (kind === 'state' ? [i] : [])))

/** Steps that may be under way at once; each has its own staging for batch and numbers. */
const RING = 3

/**
 * Trains a model step by step: compiles one program per batch signature, keeps all training state in native memory and updates it in place.
 * Steps are queued and run on native threads; the event loop stays free.
 */
export class Trainer {
  /** Times every instruction of the steps from now on. */
  profiling = false
  readonly queue: Queue
  readonly arena: NativeArena
  private readonly spec: StepSpec
  private readonly seed: number
  private readonly device: 'null' | undefined
  private planOptions: PlanOptions
  private readonly accumulators: Record<string, Tensor> = {}
  private readonly programs = new Map<string, Compiled>()
  private readonly rings = new Map<string, { slots: Slot[]; next: number }>()
  private readonly memory = new Map<string, NativeBuffer>()
  private readonly spare = new Map<string, NativeBuffer>()

  constructor(
    readonly model: Trainable,
    readonly options: TrainerOptions,
  ) {
    const { parameters, state } = namedTensors(model)
    if (Object.keys(parameters).length === 0) {
      throw new SteepestError('ARGUMENT', {
        who: 'train',
        rule: 'the model has no float tensors as fields, so there is nothing to train',
      })
    }
    const { optimizer, clip = 1, processes } = options
    if (processes && processes.size > 1 && optimizer.step) {
      throw new SteepestError('OPTION', {
        who: optimizer.name,
        rule: 'an optimizer that looks at the objective itself cannot train on several processes yet',
        fix: 'Take one that needs gradients only, or train in one process',
      })
    }
    this.seed = options.seed ?? 0
    this.device = options.device
    this.planOptions = { arena: options.arena, packed: options.activations }
    const optimizerState = inTrace(() => optimizer.init(parameters))
    const flat = flatten(optimizerState)
    this.spec = {
      model,
      optimizer,
      optimizerState,
      parameters,
      moduleState: state,
      slots: Object.fromEntries(flat.tensors.map((t, i) => [flat.paths[i], t])),
      accumulators: this.accumulators,
      // A small space that is chosen by own gradients is another one in each process.
      smallSums:
        (processes?.size ?? 1) === 1 &&
        Object.keys(inTrace(() => sumsOf(optimizer)?.avals(parameters) ?? {})).length > 0,
      moved: optimizer.moved(parameters),
      clip,
      processes: processes?.size ?? 1,
      keepsState: options.keepsState ?? false,
      evaluatesOther: inTrace(() => optimizer.evalParams(parameters, optimizerState)) !== parameters,
    }
    this.queue = new Queue()
    this.arena = new (native().Arena)()
  }

  get optimizer(): Optimizer {
    return this.spec.optimizer
  }

  get parameters(): Readonly<Record<string, Tensor>> {
    return this.spec.parameters
  }

  get moduleState(): Readonly<Record<string, Tensor>> {
    return this.spec.moduleState
  }

  /** Optimizer slots by path. */
  get slots(): Readonly<Record<string, Tensor>> {
    return this.spec.slots
  }

  /** Computes what initializers have left to do; training state is in native memory afterwards. */
  async materialize(): Promise<void> {
    const all = [...Object.values(this.parameters), ...Object.values(this.moduleState), ...Object.values(this.slots)]
    const fresh = all.filter((t) => t.storage === undefined)
    if (fresh.length > 0) evaluate(fresh)
    await settled(all)
    // What initial weights needed is not held beside the arena of the steps.
    if (fresh.length > 0) releaseScratch()
    for (const part of ['only', 'first'] as const) {
      for (const [name, t] of Object.entries(stateOf(this.spec, part)))
        if (t.storage) this.memory.set(name, pendingOf(t).buffer)
    }
  }

  private compiled(part: Part, batch: Batch): [Compiled, string] {
    const key = `${part} ${signature(batch)}`
    let known = this.programs.get(key)
    if (!known) {
      known = this.load(inTrace(() => traceStep(this.spec, part, batch)))
      this.programs.set(key, known)
    }
    return [known, key]
  }

  private load({ graph, inputs, outputs }: StepGraph): Compiled {
    const logits = graph.outputs[outputs.findIndex(([kind]) => kind === 'logits')]
    return {
      executable: build(graph, donatedOf(inputs), this.device, this.planOptions),
      inputs,
      outputs,
      logits,
      timed: 0,
    }
  }

  /** Whether the optimizer evaluates the objective itself, over all micro-batches of a step at once. */
  private get evaluatesObjective(): boolean {
    return this.optimizer.step !== undefined
  }

  /** The programs of a step on batches of this kind: each part, and how often it is run. */
  private partsOf(given: Batch, microBatches: number, weighted: boolean): { batch: Batch; parts: [Part, number][] } {
    const batch = normalizedBy(given, weighted ? 1 : undefined)
    if (this.evaluatesObjective) {
      return { batch: stacked(Array.from({ length: microBatches }, () => batch)), parts: [['whole', 1]] }
    }
    this.prepareAccumulators(microBatches)
    if (microBatches === 1) return { batch, parts: [['only', 1]] }
    const middle: [Part, number][] = microBatches > 2 ? [['middle', microBatches - 2]] : []
    return { batch, parts: [['first', 1], ...middle, ['last', 1]] }
  }

  /** The plan of a step on batches of this kind, without running it. */
  plan(given: Batch, microBatches = 1, weighted = false): Executable['plan'][] {
    const { batch, parts } = this.partsOf(given, microBatches, weighted)
    return parts.map(([part]) => this.compiled(part, this.together(batch, part))[0].executable.plan)
  }

  /** The programs of a step as they are before anything is placed or computed again, and how often each is run. */
  lowered(given: Batch, microBatches = 1, weighted = false): { program: Lowered; times: number }[] {
    const { batch, parts } = this.partsOf(given, microBatches, weighted)
    return parts.map(([part, times]) => {
      const { graph, inputs } = inTrace(() => traceStep(this.spec, part, this.together(batch, part)))
      return { program: lowerGraph(graph, donatedOf(inputs)), times }
    })
  }

  /** From now on the arena of programs fits into so many bytes, where values computed again can make it. */
  limitArena(bytes: number | undefined): void {
    this.planOptions = { ...this.planOptions, arena: bytes }
    this.programs.clear()
  }

  private prepareAccumulators(microBatches: number): void {
    if (microBatches === 1 || Object.keys(this.accumulators).length > 0) return
    const small = inTrace(() => sumsOf(this.optimizer)?.avals(this.parameters) ?? {})
    for (const k of this.spec.moved) {
      const t = this.parameters[k]
      const whole: Aval = { shape: t.shape, dtype: t.dtype === 'float64' ? 'float64' : 'float32' }
      this.accumulators[k] = placeholder(small[k] ?? whole)
    }
  }

  /** Bytes of the sums of gradients over so many micro-batches. */
  heldBytes(microBatches: number): number {
    if (microBatches === 1 || this.evaluatesObjective) return 0
    this.prepareAccumulators(microBatches)
    return Object.values(this.accumulators).reduce((n, t) => n + avalBytes(t), 0)
  }

  private async slotFor(key: string, compiled: Compiled): Promise<Slot> {
    let ring = this.rings.get(key)
    if (!ring) this.rings.set(key, (ring = { slots: [], next: 0 }))
    if (ring.slots.length < RING) {
      const { Buffer } = native()
      const { externals } = compiled.executable.plan
      const keyBytes = externals[compiled.inputs.findIndex(([kind]) => kind === 'key')].bytes
      const slot: Slot = { buffers: new Map(), args: new Buffer(ARGS * 8), key: new Buffer(keyBytes), ticket: 0 }
      externals.forEach((buf, i) => {
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
    micros = 1,
  ): Promise<() => Promise<StepResult>> {
    const [compiled, key] = this.compiled(part, batch)
    await settled(compiled.inputs.flatMap((input) => (input[0] === 'capture' ? [input[1]] : [])))
    const slot = await this.slotFor(key, compiled)
    const { plan } = compiled.executable
    slot.args.write(Float64Array.of(args.lr, args.step, args.normalizer ?? 1))
    const keys = Array.from({ length: micros }, (_, i) => [...stepKey(this.seed, args.step, micro + i)])
    slot.key.write(Int32Array.from(keys.flat()))
    const bindings = plan.externals.map((buf, i) => {
      const input = compiled.inputs[i]
      if (!input || input[0] === 'batch') return slot.buffers.get(i)!
      if (input[0] === 'args') return slot.args
      if (input[0] === 'key') return slot.key
      if (input[0] === 'capture') return pendingOf(input[1]).buffer
      return this.stateBuffer(input[1], buf.bytes)
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
    const trains = part !== 'evaluate' && part !== 'predict'
    const profile = this.profiling && trains
    if (profile) compiled.timed++
    slot.ticket = this.queue.submit(compiled.executable, bindings, this.arena, { chained: trains && chained, profile })
    compiled.outputs.forEach((kind, o) => {
      const at = plan.outputs[o]
      if (kind[0] !== 'state' || at < compiled.inputs.length) return
      this.spare.set(kind[1], this.memory.get(kind[1])!)
      this.memory.set(kind[1], bindings[at])
    })
    const { ticket } = slot
    const numberAt = (o: number): number => {
      if (o < 0) return Number.NaN
      const at = plan.outputs[o]
      const wide = plan.externals[at].bytes === 8
      const target = wide ? new Float64Array(1) : new Float32Array(1)
      bindings[at].read(target)
      return target[0]
    }
    const logits = (): StepResult['logits'] => {
      const o = compiled.outputs.findIndex(([kind]) => kind === 'logits')
      if (o < 0) return undefined
      const at = plan.outputs[o]
      const { dtype, shape } = compiled.logits!
      const count = shape.reduce((n, d) => n * d, 1)
      const target = dtype === 'float64' ? new Float64Array(count) : new Float32Array(count)
      bindings[at].read(target)
      return target
    }
    return async () => {
      try {
        await this.queue.wait(ticket)
      } catch (error) {
        throw await this.explain(error, compiled, bindings)
      }
      const number = (want: 'loss' | 'gradNorm') => numberAt(compiled.outputs.findIndex(([kind]) => kind === want))
      const metrics = compiled.outputs.flatMap((kind, o) => (kind[0] === 'metric' ? [[kind[1], numberAt(o)]] : []))
      return {
        loss: number('loss'),
        gradNorm: number('gradNorm'),
        metrics: Object.fromEntries(metrics) as StepResult['metrics'],
        logits: logits(),
      }
    }
  }

  /** A non-finite number is traced to the op and module that made it first; the state that the step began with is still there. */
  private async explain(error: unknown, compiled: Compiled, bindings: NativeBuffer[]): Promise<unknown> {
    if (!(error instanceof FaultError) || error.fault.kind !== 'nonFinite') return error
    // The other processes would have to run their programs again too.
    if (this.spec.processes > 1) return error
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
    if (this.evaluatesObjective) {
      const whole = stacked(microBatches.map((batch) => normalizedBy(batch, args.normalizer)))
      const own = { ...args, normalizer: args.normalizer ?? 1 / count }
      return this.submit('whole', whole, own, 0, !args.unchained, count)
    }
    this.prepareAccumulators(count)
    const waits: (() => Promise<StepResult>)[] = []
    const rows = microBatches.map((batch) => Object.values(batch)[0]?.shape[0] ?? 1)
    const allRows = rows.reduce((n, r) => n + r, 0)
    for (let i = 0; i < count; i++) {
      const part: Part = count === 1 ? 'only' : i === 0 ? 'first' : i === count - 1 ? 'last' : 'middle'
      const share = rows[i] / allRows / this.spec.processes
      const normalizer = args.normalizer ?? (share === 1 ? undefined : share)
      waits.push(
        await this.submit(
          part,
          this.together(normalizedBy(microBatches[i], args.normalizer), part, args.stop),
          { ...args, normalizer },
          i + count * (this.options.processes?.rank ?? 0),
          i > 0 || !args.unchained,
        ),
      )
    }
    return async () => {
      let loss = 0
      let gradNorm = Number.NaN
      const metrics: Record<string, number> = {}
      for (const wait of waits) {
        const result = await wait()
        loss += result.loss
        gradNorm = result.gradNorm
        for (const [k, x] of Object.entries(result.metrics)) metrics[k] = (metrics[k] ?? 0) + x
      }
      return { loss, gradNorm, metrics }
    }
  }

  /** Among several processes each says with a step whether it wants to end. */
  private together(batch: Batch, part: Part, stop = false): Batch {
    return this.spec.processes > 1 && (part === 'only' || part === 'last')
      ? { ...batch, stop: new HostArray(Float32Array.of(stop ? 1 : 0), [1]) }
      : batch
  }

  /** The programs whose instructions were timed, and what they took. */
  profiled(): ProfiledProgram[] {
    return [...this.programs.values()].flatMap(({ executable: { plan, program }, timed: runs }) =>
      runs > 0 ? [{ instructions: plan.instructions, nanoseconds: program.profile, runs }] : [],
    )
  }

  /** The loss of a batch in evaluation mode. */
  async evaluate(batch: Batch, normalizer?: number): Promise<number> {
    const wait = await this.submit('evaluate', normalizedBy(batch, normalizer), { lr: 0, step: 0, normalizer }, 0)
    return (await wait()).loss
  }

  /** Has `predict` give what `tell` makes of the logits in place of them; before the first `predict`. */
  tellBy(tell: StepSpec['tell']): void {
    this.spec.tell = tell
  }

  /** As `evaluate`, with what the model says: the logits, flat. */
  async predict(batch: Batch, normalizer?: number): Promise<{ loss: number; logits: Float32Array | Float64Array }> {
    const wait = await this.submit('predict', normalizedBy(batch, normalizer), { lr: 0, step: 0, normalizer }, 0)
    const { loss, logits } = await wait()
    return { loss, logits: logits! }
  }

  /** Where the memory of a piece of training state is now. */
  buffer(name: string): NativeBuffer {
    const buffer = this.memory.get(name)
    if (!buffer) throw new SteepestError('ARGUMENT', { who: 'train', rule: 'no such training state', got: name })
    return buffer
  }

  /** Names of the parameters whose weights to use are others than those that are trained. */
  get evaluatedApart(): readonly string[] {
    return this.spec.evaluatesOther ? this.spec.moved : []
  }

  private readonly usedPrograms = new Map<string, Compiled>()
  private readonly used = new Map<string, NativeBuffer>()

  /** Computes the weights to use where they are others than those that are trained; `usedBuffer` has them then. */
  async computeUsed(): Promise<void> {
    for (const name of this.evaluatedApart) {
      let compiled = this.usedPrograms.get(name)
      if (!compiled) this.usedPrograms.set(name, (compiled = this.load(inTrace(() => traceEvalParam(this.spec, name)))))
      const { plan } = compiled.executable
      const to = this.used.get(name) ?? new (native().Buffer)(avalBytes(this.parameters[name]))
      this.used.set(name, to)
      const bindings = plan.externals.map((_, i) => {
        const input = compiled.inputs[i]
        if (input?.[0] === 'capture') return pendingOf(input[1]).buffer
        return input ? this.buffer(input[1] as string) : to
      })
      await this.queue.wait(this.queue.submit(compiled.executable, bindings, this.arena))
    }
  }

  /** Where the weights of a parameter are that are to be evaluated, used and saved. */
  usedBuffer(name: string): NativeBuffer {
    return this.used.get(name) ?? this.buffer(`p:${name}`)
  }

  /** Points the model's tensors at the memory that training left, so that the model can be used. */
  async publish(): Promise<void> {
    // Nothing is there where the run ended before its first step.
    if (this.memory.size > 0) await this.computeUsed()
    for (const [k, t] of Object.entries(this.parameters)) {
      if (this.memory.has(`p:${k}`)) t.storage = { buffer: this.usedBuffer(k), bytes: avalBytes(t) }
    }
    for (const [k, t] of Object.entries(this.moduleState)) {
      const buffer = this.memory.get(`m:${k}`)
      if (buffer) t.storage = { buffer, bytes: avalBytes(t) }
    }
  }

  close(): void {
    this.queue.close()
  }
}
