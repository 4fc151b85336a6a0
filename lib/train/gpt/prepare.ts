import { existsSync } from 'node:fs'
import { basename, dirname, extname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import { native } from '../../addon.js'
import { deviceMemory, useDevice } from '../../device.js'
import {
  evaluationSteps,
  openText,
  prefetch,
  splitTokens,
  StoredTokens,
  type TextData,
  TextLoader,
  type TokenStoreOptions,
  tokensChecksum,
} from '../../data/index.js'
import { copyTokens } from '../../data/tokens.js'
import { SteepestError } from '../../errors.js'
import { checkpointSteps, latestCheckpoint } from '../../io/checkpoint.js'
import { nodeFileSystem } from '../../io/files.js'
import { readState, type JsonRecord } from '../../io/state.js'
import { GPT2 } from '../../models/gpt2.js'
import { configOf } from '../../models/hf.js'
import { noDecay, type Optimizer, optimizerNamed, schedule, type ScheduleSpec } from '../../optim/index.js'
import type { DType } from '../../tensor/dtype.js'
import { parameters } from '../../nn/module.js'
import { allowedFrom, arenaWithin, Budget, type BudgetChoice, choiceLine } from '../budget.js'
import type { Setup } from '../budget-setup.js'
import { bytesFrom } from '../bytes.js'
import type { Plan, PreparedRun, TrainEvent } from '../events.js'
import { memoryLimit } from '../machine.js'
import { planMemory } from '../memory.js'
import { gradientNoise } from '../noise.js'
import type { TrainOptions } from '../options.js'
import { fromFirst, ownShare, type Processes, threadsOfEach } from '../parallel.js'
import { bytes as showBytes, short } from '../plot-numbers.js'
import { splitBatches, splitSource } from '../split.js'
import { trainWith } from '../loop.js'
import { Trainer } from '../trainer.js'
import { choose, type Choices } from './choose.js'
import { measurePeak } from './measure.js'
import { Sampler } from '../generate/sampler.js'

/** What the preparation may be given beside the options. */
export interface PrepareContext {
  /** Folder that relative paths begin at; that of the process by default. */
  cwd?: string
  /** Called now and then with what is being done and the share that is done, 0 to 1. */
  onProgress?: (what: string, done: number) => void
  /** Where tokens go that are too many for memory. */
  storage?: TokenStoreOptions
  /** Those that train the model together. */
  processes?: Processes
}

/** Options that belong to a run and come back when it is resumed. */
const RUN_KEYS = [
  'file',
  'vocab',
  'validation',
  'layers',
  'heads',
  'width',
  'context',
  'dropout',
  'dtype',
  'steps',
  'batch',
  'accumulate',
  'seed',
  'patience',
  'allowNonFinite',
  'memory',
  'allow',
  'optimizer',
  'lr',
  'schedule',
  'warmup',
  'weightDecay',
  'clip',
  'evalEvery',
  'saveEvery',
  'sampleEvery',
  'keep',
] as const satisfies readonly (keyof TrainOptions)[]

/** Seconds that a run takes where the user does not say how many steps. */
const RUN_SECONDS = 170
/** Share of the speed of a large product that whole steps of small models reach, by which times are estimated. Measured on 2 cores of an EPYC (Zen 5): 0.73 (width 128) to 0.9 (width 384). */
const EFFICIENCY = 0.75
const SAVE_SECONDS = 300
/** Windows of the validation part that one evaluation looks at. */
const EVAL_BATCHES = 8
/** Tokens of a sample that is shown while training. */
const SAMPLE_TOKENS = 100
const SAMPLE_TEMPERATURE = 0.8

interface Resumed {
  /** Checkpoint folder. */
  dir: string
  step: number
  run: TrainOptions
  /** Why later checkpoints were passed over; empty where none was. */
  skipped: string
}

export async function findCheckpoint(path: string): Promise<{ dir: string; skipped: string }> {
  if (existsSync(join(path, 'state.json'))) return { dir: path, skipped: '' }
  if (!existsSync(path))
    throw new SteepestError('FILE', { who: path, rule: 'there is no such run folder or checkpoint' })
  const latest = await latestCheckpoint(path)
  const why = latest.skipped.map((s) => s.reason).join('; ')
  if (latest.dir) return { dir: latest.dir, skipped: why }
  throw new SteepestError('CHECKPOINT', {
    who: path,
    rule: 'the folder has no whole checkpoint',
    got: why,
    fix: 'Give a run folder or a checkpoint-N of one',
  })
}

async function openResumed(path: string): Promise<Resumed> {
  const { dir, skipped } = await findCheckpoint(path)
  const { step, state } = await readState(dir, nodeFileSystem)
  const { run } = state as { run?: TrainOptions }
  if (!run)
    throw new SteepestError('CHECKPOINT', {
      who: dir,
      rule: 'the checkpoint must be of `steepest train`',
      fix: 'Resume it with the program that wrote it',
    })
  return { dir, step, run, skipped }
}

/** Levels above a run folder up to which a text is remembered by its way from there: `runs/NAME` and the text beside `runs`. */
const NEAR = 2

/** Where a run's text is, as the checkpoint has it: from the run folder where it lies near, so that both can be moved together. */
function remembered(file: string, runFolder: string): string {
  const way = relative(runFolder, file)
  const up = way.split(sep).filter((part) => part === '..').length
  return isAbsolute(way) || up > NEAR ? file : way.split(sep).join('/')
}

/** The text that a checkpoint remembers. */
function recalled(file: string, { dir }: Resumed, given: string): string {
  const found = resolve(dirname(dir), file)
  if (existsSync(found)) return found
  throw new SteepestError('FILE', {
    who: found,
    rule: 'the text of the run is not there any more',
    got: isAbsolute(file) ? undefined : `${file} from the run folder`,
    fix: `Say where it is: steepest train FILE --resume ${shellQuoted(given)}`,
  })
}

/** A run that cannot go on from its last checkpoint says so. */
const passedOver = ({ dir, skipped }: Resumed): Record<string, string> =>
  skipped ? { resume: `${basename(dir)}, as ${skipped.replaceAll('. Resume from another checkpoint', '')}` } : {}

/** A folder of this name that no run has used. */
export function freshFolder(cwd: string, name: string): string {
  for (let n = 1; ; n++) {
    const dir = join('runs', n === 1 ? name : `${name}-${n}`)
    if (!existsSync(join(cwd, dir))) return dir
  }
}

function scheduleOf(options: TrainOptions, lr: number, steps: number): ScheduleSpec {
  const warmup = Math.min(options.warmup ?? Math.ceil(steps / 20), steps)
  switch (options.schedule ?? 'cosine') {
    case 'constant':
      return { kind: 'constant', lr, warmup }
    case 'linear':
      return { kind: 'linear', lr, warmup, steps }
    case 'wsd': {
      const decay = Math.min(Math.ceil(steps / 5), steps - warmup)
      return { kind: 'wsd', lr, warmup, decay, stable: steps - warmup - decay }
    }
    case 'oneCycle':
      return { kind: 'oneCycle', lr, steps }
    default:
      return { kind: 'cosine', lr, warmup, steps, end: lr / 10 }
  }
}

function makeOptimizer(options: TrainOptions, choices: Choices, steps: number): Optimizer {
  const decay = choices.weightDecay === undefined ? {} : { weightDecay: choices.weightDecay, groups: [noDecay] }
  return optimizerNamed(options.optimizer ?? 'adamw', {
    lr: schedule(scheduleOf(options, choices.lr, steps)),
    ...decay,
  })
}

const SCHEDULES = {
  constant: 'constant',
  linear: 'linear',
  cosine: 'cosine',
  wsd: 'warm-up, stable, decay',
  oneCycle: 'one cycle',
} as const

/**
 * Plans a training run of a small GPT on a text: reads it, chooses what the options leave open, and knows memory and cost before the first step.
 *
 * @throws SteepestError with the option or file that is wrong
 */
export async function prepareTraining(given: TrainOptions, context: PrepareContext = {}): Promise<PreparedRun> {
  const cwd = context.cwd ?? process.cwd()
  const path = (p: string) => (isAbsolute(p) ? p : resolve(cwd, p))
  const resumed = given.resume === undefined ? undefined : await openResumed(path(given.resume))
  const options: TrainOptions = { ...resumed?.run, ...given }
  if (resumed && given.file === undefined && options.file !== undefined)
    options.file = recalled(options.file, resumed, given.resume!)
  useDevice(options.device)
  const { processes } = context
  const threads = native().threads(options.threads ?? (processes && threadsOfEach()))
  const tokenizer = resumed && given.tokenizer === undefined ? join(resumed.dir, 'tokenizer.json') : options.tokenizer
  const data = await openText({
    file: options.file === undefined ? undefined : path(options.file),
    tokenizer: tokenizer === undefined || tokenizer === 'bytes' ? tokenizer : path(tokenizer),
    vocab: resumed ? undefined : options.vocab,
    onProgress: context.onProgress,
    storage: context.storage,
  })
  const who = options.file ?? data.name
  // What is chosen for a machine is chosen by one of them.
  const choices = fromFirst(processes, choose(options, data.tokens.length, threads))
  if (processes && options.memory !== undefined)
    throw new SteepestError('OPTION', { who: 'memory', rule: 'a run on several processes takes no budget yet' })
  const { layers, heads, width, context: length, batch } = choices
  if (width % heads !== 0) {
    throw new SteepestError('OPTION', {
      who: 'heads',
      rule: 'the heads must divide the width',
      got: `${heads} heads for width ${width}`,
      fix: `Give --width ${Math.ceil(width / heads) * heads}, or other heads`,
    })
  }
  const { accumulate = 1, seed = 1, dropout = 0, dtype = 'float32', validation = 0.1 } = options
  const split = splitTokens(data.tokens, { context: length, validation, who })
  const checksum = await tokensChecksum(split.train)
  const loader = new TextLoader(split.train, { context: length, batch, accumulate, seed, who, checksum })
  const first = await loader.next()
  loader.restore({ ...loader.state(), epoch: 0, at: 0 })

  const model = new GPT2({
    vocabSize: data.tokenizer.vocabSize,
    context: length,
    layers,
    heads,
    width,
    dropout,
    dtype: dtype as DType,
    seed,
  })
  const clip = options.clip ?? 1
  const setupOf = (steps: number): Setup => {
    return { model, optimizer: makeOptimizer(options, choices, steps), clip, seed, split: 1, writes: true }
  }
  const allow = allowedFrom(
    'allow',
    (options.allow ?? '').split(',').flatMap((name) => name.trim() || []),
  )
  const asked = options.memory === undefined ? undefined : bytesFrom('memory', options.memory)
  const budget = asked ?? deviceMemory() ?? memoryLimit()
  let choice: BudgetChoice | undefined
  const make = (steps: number): Trainer => {
    const setup = choice?.apply(setupOf(steps)) ?? setupOf(steps)
    return new Trainer(setup.model, { ...setup, arena: choice && arenaWithin(budget, choice), processes })
  }
  const parts = () => choice?.setup.split ?? 1
  const share = processes ? ownShare(first, processes) : first
  const planOf = (trainer: Trainer) => planMemory(trainer, splitBatches(share.microBatches, parts()))
  // The number of steps depends on the cost of one, which depends on the plan.
  let draft = make(options.steps ?? 1)
  let planned = asked === undefined ? planOf(draft) : undefined
  if (!planned || planned.memory.total > budget) {
    choice = new Budget(setupOf(options.steps ?? 1), first).choose(budget, allow)
    draft = make(options.steps ?? 1)
    planned = planOf(draft)
  }
  const noise = choice ? await gradientNoise(choice.setup, share, arenaWithin(budget, choice)) : undefined
  const { memory, flops } = planned
  const peakFlops = await measurePeak(dtype as DType)
  const secondsPerStep = fromFirst(processes, ((choice?.slowdown ?? 1) * flops) / (peakFlops * EFFICIENCY))
  const { chosen } = choices
  let { steps } = options
  if (steps === undefined) {
    steps = Math.max(100, Math.round(RUN_SECONDS / secondsPerStep / 100) * 100)
    chosen.steps = `${steps}: about ${Math.round((steps * secondsPerStep) / 60)} min on this machine`
  }
  if (data.vocabChosen) chosen.vocab = data.vocabChosen
  const total = steps
  const evalEvery = options.evalEvery ?? Math.max(1, Math.ceil(total / 20))
  const sampleEvery = options.sampleEvery ?? Math.max(1, Math.ceil(total / 10))
  const saveEvery = options.saveEvery ?? Math.max(1, Math.round(SAVE_SECONDS / secondsPerStep))
  const name = data.file === undefined ? 'text' : basename(data.file, extname(data.file))
  const out = fromFirst(processes, given.out ?? (resumed ? dirname(resumed.dir) : freshFolder(cwd, name)))
  if (!resumed && (processes?.rank ?? 0) === 0 && (await checkpointSteps(path(out))).length > 0) {
    throw new SteepestError('OPTION', {
      who: out,
      rule: 'the folder already holds the checkpoints of a run',
      fix: `Go on with it by --resume ${out}, or give another --out`,
    })
  }
  if (resumed && resumed.step >= total) {
    throw new SteepestError('OPTION', {
      who: resumed.dir,
      rule: 'the run has done all its steps',
      got: `step ${resumed.step} of ${total}`,
      fix: 'Give more with --steps',
    })
  }
  const trainer = options.steps === undefined ? make(total) : draft
  const { optimizer } = trainer
  // What was measured is left out, so that equal runs leave equal files.
  const run = Object.fromEntries(
    RUN_KEYS.flatMap((key) => {
      const value = {
        ...options,
        layers,
        heads,
        width,
        context: length,
        batch,
        lr: choices.lr,
        steps: total,
        evalEvery,
        sampleEvery,
      }[key]
      return value === undefined ? [] : [[key, key === 'file' ? remembered(path(String(value)), path(out)) : value]]
    }),
  ) as JsonRecord
  const evals = Math.ceil(total / evalEvery) * EVAL_BATCHES * (1 / 3 / accumulate)
  const plan: Plan = {
    model: `GPT: ${layers} layers, ${heads} heads, width ${width}`,
    parameters: Object.values(parameters(model)).reduce((n, t) => n + t.size, 0),
    data: `${data.name}: ${showBytes(data.bytes)}, ${short(data.tokens.length)} tokens, ${Math.round(validation * 100)}% for validation${data.note ? ` (${data.note})` : ''}`,
    tokenizer: data.tokenizerLine,
    batch,
    accumulate,
    context: length,
    tokensPerStep: batch * accumulate * length,
    steps: total,
    fromStep: resumed?.step ?? 0,
    optimizer: optimizer.name,
    lr: choices.lr,
    schedule: SCHEDULES[options.schedule ?? 'cosine'],
    dtype,
    seed,
    threads,
    ...(processes ? { processes: processes.size } : {}),
    flopsPerStep: flops,
    peakFlops,
    memory,
    ...(choice ? { fitted: choiceLine(budget, choice, noise) } : {}),
    secondsExpected: (total - (resumed?.step ?? 0) + evals) * secondsPerStep,
    out,
    chosen: resumed ? passedOver(resumed) : chosen,
  }

  async function* events({ signal }: { signal?: AbortSignal } = {}): AsyncGenerator<TrainEvent> {
    const sampler = new Sampler(model, trainer)
    const started = await sampleStart(data)
    // What a file is read for is done beside the step.
    const source = data.tokens instanceof StoredTokens ? prefetch(loader) : loader
    const loop = trainWith(trainer, splitSource(source, parts()), {
      steps: total,
      evalData: evaluationSteps(split.validation, {
        context: length,
        batch: batch / parts(),
        limit: batch * EVAL_BATCHES,
        who,
      }),
      evalEvery,
      out: path(out),
      saveEvery,
      keep: options.keep ?? 2,
      seed,
      config: configJson(model, data.tokenizer.endOfText),
      tokenizer: data.tokenizer.files(),
      resume: resumed?.dir,
      run,
      sampleEvery,
      sample: async (_, step) => ({
        prompt: started.prompt,
        text: await sampleText(sampler, data, started.ids, seed + step),
      }),
      patience: options.patience,
      stopAfter: options.stopAfter,
      allowNonFinite: options.allowNonFinite,
      profile: options.profile,
      signal,
      plan,
    })
    try {
      for await (const event of loop) {
        yield event.type === 'stop' && event.reason !== 'done' && event.reason !== 'earlyStopping' && event.path
          ? { ...event, resume: `steepest train --resume ${shellQuoted(out)}` }
          : event
      }
    } finally {
      if (data.tokens instanceof StoredTokens) await data.tokens.close()
    }
  }
  const report = () => new Budget(setupOf(options.steps ?? 1), first).report(allow)
  return { plan, run: events, memory: report }
}

function configJson(model: GPT2, endOfText: number | undefined): JsonRecord {
  const ends = endOfText === undefined ? {} : { bos_token_id: endOfText, eos_token_id: endOfText }
  return { ...configOf(model), ...ends } as JsonRecord
}

export const shellQuoted = (text: string): string =>
  /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`

/** What samples go on from: the first words of the text. */
async function sampleStart({ tokens, tokenizer }: TextData): Promise<{ prompt: string; ids: number[] }> {
  const start = new Int32Array(Math.min(8, tokens.length))
  await copyTokens(tokens, 0, start)
  const ids = [...start]
  return { prompt: tokenizer.decode(ids), ids }
}

async function sampleText(
  sampler: Sampler,
  { tokenizer }: TextData,
  prompt: readonly number[],
  seed: number,
): Promise<string> {
  const decoder = tokenizer.decodeStream()
  let text = ''
  let n = 0
  const ends = tokenizer.endOfText === undefined ? [] : [tokenizer.endOfText]
  for await (const [token] of sampler.generate([prompt], { temperature: SAMPLE_TEMPERATURE, seed, ends })) {
    if (token < 0) break
    text += decoder.push(token)
    if (++n >= SAMPLE_TOKENS) break
  }
  return text + decoder.end()
}
