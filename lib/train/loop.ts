import { join } from 'node:path'
import { native } from '../addon.js'
import { SteepestError } from '../errors.js'
import { FaultError } from '../graph/executable.js'
import { type CheckpointParts, type JsonRecord, loadCheckpoint, saveCheckpoint } from '../io/checkpoint.js'
import { atomicWriteFile, nodeFileSystem } from '../io/files.js'
import { RunLog } from '../io/runlog.js'
import type { StepData, StepSource } from './data.js'
import type { Batch } from './host.js'
import { eventLine, type Plan, type StopReason, type TrainEvent } from './events.js'
import { planMemory } from './memory.js'
import { requireAgreement, shareOf } from './parallel.js'
import { chromeTrace, profileOf } from './profile.js'
import { explainMemory } from './memory-error.js'
import { Run, type TrainResult } from './run.js'
import type { Tensor } from '../tensor/tensor.js'
import { restoreTensors, stateSources } from './state.js'
import type { Trainer, StepResult } from './trainer.js'

/** How a loop runs. */
export interface LoopOptions {
  /** Steps of the whole run, resumed parts included. */
  steps: number
  /** Seed of everything that is random in the model. */
  seed?: number
  /** Batches that the model is evaluated on, every `evalEvery` steps and at the end. */
  evalData?: () => Iterable<StepData> | AsyncIterable<StepData>
  evalEvery?: number
  /** Measures beside the loss, anew for every evaluation. */
  metrics?: () => Metrics
  /** Run folder: `run.jsonl` and checkpoints; nothing is written without it. */
  out?: string
  saveEvery?: number
  /** Last checkpoints that are kept, beside the best. */
  keep?: number
  /** What a checkpoint holds beside the training state. */
  config?: JsonRecord | string
  tokenizer?: CheckpointParts['tokenizer']
  /** Checkpoint folder to go on from. */
  resume?: string
  sampleEvery?: number
  sample?: (trainer: Trainer, step: number) => Promise<{ prompt: string; text: string }>
  /** Evaluations without a better loss before the run stops. */
  patience?: number
  /** Step to stop after, saved, as an interruption would. */
  stopAfter?: number
  /** Go on after a non-finite loss or gradient, leaving out its update. */
  allowNonFinite?: boolean
  /** Times every instruction of the steps: a `profile` event at the end, and a Chrome trace `profile.json` in the run folder. */
  profile?: boolean
  /** Ends the run after the step that is under way; everything is saved. */
  signal?: AbortSignal
  /** What is known beforehand about the run, for the `start` event. */
  plan?: Partial<Plan>
  /** What a program wants to find again in the checkpoint when it resumes. */
  run?: JsonRecord
}

/** Measures of an evaluation beside the loss, gathered batch by batch. */
export interface Metrics {
  /** What it wants to see of the logits, where that is not all of them. */
  readonly tell?: (logits: Tensor) => Tensor
  add(batch: Batch, logits: Float32Array | Float64Array): void
  result(): Record<string, number>
}

/** Steps shorter than this are reported together, so that a tiny step does not cost an event. */
const REPORT_MS = 50
/** Steps that are queued beyond the one whose numbers are awaited. */
const AHEAD = 1

/** @internal Refuses a number of steps that is none. */
export function checkSteps(steps: number): void {
  if (Number.isSafeInteger(steps) && steps >= 1) return
  throw new SteepestError('OPTION', {
    who: 'train',
    rule: '`steps` must be a whole number of 1 or more',
    got: String(steps),
  })
}

/** The loop over a trainer that is there already. */
export function trainWith(trainer: Trainer, source: StepSource, options: LoopOptions): Run {
  checkSteps(options.steps)
  const { processes } = trainer.options
  if (!processes || processes.size === 1) return new Run(new Loop(trainer, source, options).run())
  if (source.observe) {
    throw new SteepestError('OPTION', {
      who: 'train',
      rule: 'data that follow the numbers of the steps cannot train on several processes yet, each of which has its own',
    })
  }
  const weights = Object.entries(trainer.parameters).map(([name, t]) => [name, t.shape, t.dtype])
  requireAgreement(processes, [options.steps, options.stopAfter, options.seed, trainer.optimizer.name, weights])
  // One process looks at the run and writes what it leaves.
  const silent = { out: undefined, evalData: undefined, sample: undefined, profile: false }
  const own = processes.rank === 0 ? options : { ...options, ...silent }
  return new Run(new Loop(trainer, shareOf(source, processes), own).run())
}

interface Queued {
  step: number
  lr: number
  tokens: number
  wait: () => Promise<StepResult>
}

class Loop {
  private log: RunLog | undefined
  private step = 0
  private tokens = 0
  private best = Infinity
  private worse = 0
  private evalLoss: number | undefined
  private savedPath: string | undefined
  private savedStep = -1
  /** Among several processes: that this one wants the run to end, and that all of them know of one that does. */
  private wishes = false
  private agreed = false
  private readonly startedAt = performance.now()
  private readonly residentBefore = process.memoryUsage.rss()

  constructor(
    private readonly trainer: Trainer,
    private readonly source: StepSource,
    private readonly options: LoopOptions,
  ) {}

  private get together(): boolean {
    return (this.trainer.options.processes?.size ?? 1) > 1
  }

  /** Whether no further step is to begin: a process among several may not decide that by itself. */
  private get ends(): boolean {
    return this.together ? this.agreed : (this.options.signal?.aborted ?? false)
  }

  private get seconds(): number {
    return (performance.now() - this.startedAt) / 1000
  }

  /** The data that the run has come to. */
  private seen: StepData | undefined

  /** Why a line of the log could not be written; the run ends at the next step. */
  private logFailure: unknown

  /** Writes an event to the log and hands it on. */
  private tell(event: TrainEvent): TrainEvent {
    this.log?.append(JSON.parse(eventLine(event)) as JsonRecord).catch((error: unknown) => {
      this.logFailure ??= error
    })
    return event
  }

  async *run(): AsyncGenerator<TrainEvent, TrainResult> {
    const { options, trainer } = this
    try {
      await trainer.materialize()
      trainer.profiling = options.profile ?? false
      if (options.resume) await this.restore(options.resume)
      if (options.out) await nodeFileSystem.makeFolder(options.out)
      if (options.out) this.log = await RunLog.open(join(options.out, 'run.jsonl'), { keepThroughStep: this.step })
      const result = yield* this.loop()
      await this.endLog()
      return result
    } catch (thrown) {
      const error = explainMemory(thrown, trainer, this.seen)
      const code = error instanceof SteepestError ? error.code : 'NATIVE'
      const message =
        error instanceof SteepestError ? error.sentence : error instanceof Error ? error.message : String(error)
      yield this.tell({ type: 'error', code, message })
      throw error
    } finally {
      await this.drainQueue()
      await trainer.publish()
      await this.log?.close().catch(() => undefined)
      await this.source.close?.()
      trainer.close()
    }
  }

  /** A run whose last lines are not in its log has not ended well. */
  private async endLog(): Promise<void> {
    const { log } = this
    if (!log) return
    await log.flush()
    if (this.logFailure !== undefined) throw this.logFailure
    this.log = undefined
    await log.close()
  }

  private readonly queued: Queued[] = []

  private async drainQueue(): Promise<void> {
    for (const q of this.queued.splice(0)) await q.wait().catch(() => undefined)
  }

  private async *loop(): AsyncGenerator<TrainEvent, TrainResult> {
    const { options, trainer, source } = this
    const last = Math.min(options.steps, options.stopAfter ?? Infinity)
    let loss = Number.NaN
    let reason: StopReason = 'done'
    let message: string | undefined
    let reported = performance.now()
    let reportedTokens = this.tokens
    let reportedStep = this.step
    let next = this.step
    let started = false
    let ended = false

    const due = (every: number | undefined, step: number) => every !== undefined && step % every === 0
    const pauses = (step: number) =>
      due(options.evalEvery, step) || due(options.saveEvery, step) || due(options.sampleEvery, step)

    while (!ended) {
      // Fill the queue, but never past a step after which the state is looked at.
      while (next < last && this.queued.length <= (source.observe ? 0 : AHEAD) && !this.ends) {
        const ahead = this.queued.at(-1)
        if (ahead && pauses(ahead.step)) break
        const data = await source.next()
        if (data === null) {
          if (next === this.step && this.queued.length === 0 && next === 0)
            throw new SteepestError('DATA', { who: 'train', rule: 'the data has no batch' })
          next = last
          break
        }
        next++
        this.seen = data
        if (!started) {
          started = true
          yield this.startEvent(data)
        }
        this.timedSteps++
        const lr = trainer.optimizer.lrAt(next)
        const wait = await trainer.step(data.microBatches, {
          lr,
          step: next,
          normalizer: data.weight,
          unchained: options.allowNonFinite,
          stop: this.wishes || options.signal?.aborted,
        })
        this.queued.push({ step: next, lr, tokens: data.tokens, wait })
      }
      if (this.logFailure !== undefined) throw this.logFailure
      const head = this.queued.shift()
      if (!head) break
      let result: StepResult
      try {
        result = await head.wait()
      } catch (error) {
        if (!(error instanceof FaultError) || error.fault.kind !== 'nonFinite') throw error
        message = `step ${head.step}: ${error.message}`
        if (!options.allowNonFinite) {
          await this.drainQueue()
          reason = 'nonFinite'
          break
        }
        yield this.tell({ type: 'warning', step: head.step, message: `${message}; its update was left out` })
        result = { loss: Number.NaN, gradNorm: Number.NaN, metrics: {} }
      }
      if (this.together) {
        const { stop, ...metrics } = result.metrics
        this.agreed ||= stop > 0
        result = { ...result, metrics }
      }
      source.observe?.(result.metrics)
      this.step = head.step
      this.tokens += head.tokens
      loss = result.loss
      const now = performance.now()
      const final = head.step === last
      if (now - reported >= REPORT_MS || final || pauses(head.step)) {
        const steps = head.step - reportedStep
        const seconds = (now - reported) / 1000
        yield this.tell({
          type: 'step',
          step: head.step,
          loss,
          lr: head.lr,
          gradNorm: result.gradNorm,
          ...(Object.keys(result.metrics).length > 0 ? { metrics: result.metrics } : {}),
          tokens: this.tokens,
          tokensPerSecond: (this.tokens - reportedTokens) / seconds,
          msPerStep: (seconds * 1000) / steps,
          mfu:
            this.flops && options.plan?.peakFlops
              ? (this.flops * steps) / seconds / options.plan.peakFlops
              : Number.NaN,
          memoryNow: Math.max(0, process.memoryUsage.rss() - this.residentBefore),
          memoryPlanned: this.planned,
          seconds: this.seconds,
        })
        reported = now
        reportedTokens = this.tokens
        reportedStep = head.step
      }
      const evaluates = options.evalData && (due(options.evalEvery, head.step) || head.step === options.steps)
      if (evaluates) {
        yield* this.evaluateNow()
        if (options.patience !== undefined && this.worse >= options.patience) {
          reason = 'earlyStopping'
          this.wishes = true
          ended = !this.together
        }
      }
      if (options.sample && due(options.sampleEvery, head.step)) yield await this.sampleNow()
      const stopsHere = ended || final
      if (options.out && (due(options.saveEvery, head.step) || stopsHere) && this.savedStep !== head.step)
        yield await this.saveNow()
      if (evaluates || pauses(head.step)) reported = performance.now()
      if (stopsHere) break
      if (this.ends && this.queued.length === 0) {
        if (reason === 'done') reason = 'interrupted'
        break
      }
    }
    if (reason === 'done' && this.step < options.steps && options.stopAfter === this.step) reason = 'stopAfter'
    else if (reason === 'done' && this.step < options.steps && this.ends) reason = 'interrupted'
    if (options.out && reason !== 'nonFinite' && this.savedStep !== this.step && this.step > 0)
      yield await this.saveNow()
    if (options.profile) yield await this.profileNow()
    if (reason === 'nonFinite')
      message += this.savedPath ? `; the last whole state is ${this.savedPath}` : '; no checkpoint had been saved'
    yield this.tell({
      type: 'stop',
      reason,
      step: this.step,
      evalLoss: this.evalLoss,
      bestLoss: Number.isFinite(this.best) ? this.best : undefined,
      path: this.savedPath,
      message,
      seconds: this.seconds,
    })
    return {
      reason,
      step: this.step,
      loss,
      evalLoss: this.evalLoss,
      bestLoss: Number.isFinite(this.best) ? this.best : undefined,
      path: this.savedPath,
    }
  }

  private timedSteps = 0
  private planned = 0
  private flops = 0

  private startEvent(data: StepData): TrainEvent {
    const { options, trainer } = this
    const { memory, flops } = planMemory(trainer, data.microBatches, data.weight !== undefined)
    this.planned = memory.total
    this.flops = flops
    return this.tell({
      type: 'start',
      model: '',
      parameters: Object.values(trainer.parameters).reduce((n, t) => n + t.size, 0),
      data: '',
      tokenizer: '',
      batch: 0,
      accumulate: data.microBatches.length,
      context: 0,
      tokensPerStep: data.tokens,
      unit: this.source.unit,
      steps: options.steps,
      fromStep: this.step,
      optimizer: trainer.optimizer.name,
      lr: trainer.optimizer.peakLr,
      schedule: trainer.optimizer.schedule,
      dtype: Object.values(trainer.parameters)[0].dtype,
      seed: options.seed ?? 0,
      threads: native().threads(),
      peakFlops: 0,
      secondsExpected: Number.NaN,
      out: options.out ?? '',
      chosen: {},
      ...options.plan,
      flopsPerStep: flops,
      memory,
    })
  }

  private async *evaluateNow(): AsyncGenerator<TrainEvent> {
    let sum = 0
    let weight = 0
    const metrics = this.options.metrics?.()
    if (metrics?.tell) this.trainer.tellBy(metrics.tell)
    const lossOf = async (batch: Batch, normalizer?: number): Promise<number> => {
      if (!metrics) return this.trainer.evaluate(batch, normalizer)
      const { loss, logits } = await this.trainer.predict(batch, normalizer)
      metrics.add(batch, logits)
      return loss
    }
    for await (const data of this.options.evalData!()) {
      const each = data.weight ?? data.microBatches.length
      for (const batch of data.microBatches) sum += (await lossOf(batch, data.weight)) * (data.weight ?? 1)
      weight += each
    }
    const loss = sum / weight
    const better = loss < this.best
    this.worse = better ? 0 : this.worse + 1
    if (better) this.best = loss
    this.evalLoss = loss
    yield this.tell({
      type: 'eval',
      step: this.step,
      loss,
      perplexity: Math.exp(loss),
      best: better,
      ...(metrics ? { metrics: metrics.result() } : {}),
      seconds: this.seconds,
    })
  }

  private async sampleNow(): Promise<TrainEvent> {
    await this.trainer.publish()
    return this.tell({ type: 'sample', step: this.step, ...(await this.options.sample!(this.trainer, this.step)) })
  }

  private async profileNow(): Promise<TrainEvent> {
    const { out } = this.options
    const programs = this.trainer.profiled()
    const path = out ? join(out, 'profile.json') : undefined
    if (path) await atomicWriteFile(path, [Buffer.from(chromeTrace(programs))])
    return this.tell({ type: 'profile', ...profileOf(programs, this.timedSteps), path })
  }

  private async saveNow(): Promise<TrainEvent> {
    const { options, trainer } = this
    // A checkpoint is not there before the log of the steps that led to it.
    await this.log?.flush()
    if (this.logFailure !== undefined) throw this.logFailure
    await trainer.computeUsed()
    const parts: CheckpointParts = {
      config: options.config ?? {},
      model: stateSources(trainer, 'model'),
      optimizer: stateSources(trainer, 'optimizer'),
      state: {
        tokens: this.tokens,
        best: Number.isFinite(this.best) ? this.best : null,
        worse: this.worse,
        seed: options.seed ?? 0,
        optimizer: trainer.optimizer.name,
        data: (this.source.state?.() ?? null) as never,
        run: options.run ?? null,
      },
      validationLoss: this.evalLoss,
      tokenizer: options.tokenizer,
    }
    const saved = await saveCheckpoint(options.out!, this.step, parts, { keep: options.keep })
    this.savedPath = saved.dir
    this.savedStep = this.step
    const bytes = [...Object.values(trainer.parameters), ...Object.values(trainer.slots)].reduce(
      (n, t) => n + t.size * 4,
      0,
    )
    return this.tell({ type: 'save', step: this.step, path: saved.dir, bytes })
  }

  private async restore(dir: string): Promise<void> {
    const checkpoint = await loadCheckpoint(dir)
    try {
      const { state } = checkpoint
      if (state.optimizer !== this.trainer.optimizer.name) {
        throw new SteepestError('CHECKPOINT', {
          who: dir,
          rule: 'the checkpoint must be of the same optimizer',
          got: `${String(state.optimizer)} for ${this.trainer.optimizer.name}`,
        })
      }
      await restoreTensors(this.trainer, checkpoint)
      this.step = checkpoint.step
      this.tokens = Number(state.tokens)
      this.best = typeof state.best === 'number' ? state.best : Infinity
      this.worse = Number(state.worse)
      this.evalLoss = checkpoint.validationLoss
      this.savedPath = dir
      this.savedStep = this.step
      if (state.data !== null) {
        if (!this.source.restore)
          throw new SteepestError('CHECKPOINT', {
            who: dir,
            rule: 'the data must be able to go on from a saved position',
            fix: 'Give a source with state() and restore()',
          })
        await this.source.restore(state.data)
      }
    } finally {
      await checkpoint.close()
    }
  }
}
