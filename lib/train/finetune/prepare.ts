import { createReadStream } from 'node:fs'
import { basename, dirname, extname, isAbsolute, join, resolve } from 'node:path'
import { native } from '../../addon.js'
import { prefetch } from '../../data/index.js'
import { useDevice } from '../../device.js'
import { SteepestError } from '../../errors.js'
import { checkpointSteps, loadCheckpoint } from '../../io/checkpoint.js'
import { atomicFolder, atomicWriteFile, nodeFileSystem } from '../../io/files.js'
import { type JsonRecord, readState } from '../../io/state.js'
import { CausalLM } from '../../models/causal.js'
import { configText } from '../../models/config-json.js'
import * as memory from '../../memory/index.js'
import { handedOn } from '../../models/handed-on.js'
import { configOf, type FolderModel, saveModel } from '../../models/hf.js'
import { saveAdapter } from '../../models/peft.js'
import { T5 } from '../../models/t5.js'
import { loadTensor } from '../../models/tensors.js'
import { parameters, withTensors } from '../../nn/module.js'
import { noDecay, type Optimizer, optimizerNamed, schedule } from '../../optim/index.js'
import type { Tensor } from '../../tensor/tensor.js'
import type { Plan, PreparedRun, TrainEvent } from '../events.js'
import { findCheckpoint, freshFolder, shellQuoted } from '../gpt/prepare.js'
import type { Metrics } from '../loop.js'
import { train } from '../train.js'
import type { Trainable } from '../trainer.js'
import type { Classes } from './classes.js'
import { load, type LoadContext } from './load.js'
import { ClassMetrics, MultiLabelMetrics, NumberMetrics } from './metrics.js'
import type { FinetuneOptions } from './options.js'
import { TagMetrics, TokenMetrics } from './token-metrics.js'

/** A run that is planned, and some of its rows as a person reads them. */
export interface PreparedFinetune extends PreparedRun {
  preview(): string[]
  /** Gives back what the rows take, of disk too; a run does so when it ends. */
  close(): Promise<void>
}

function metricsOf(model: FolderModel, classes: Classes | undefined): (() => Metrics) | undefined {
  if (classes?.task === 'token') return () => new TagMetrics(classes.names)
  if (classes?.problem === 'single') return () => new ClassMetrics(classes.names.length)
  if (classes) return classes.problem === 'multi' ? () => new MultiLabelMetrics() : () => new NumberMetrics()
  if (model instanceof T5) return () => new TokenMetrics(true)
  return model instanceof CausalLM ? undefined : () => new TokenMetrics()
}

/** The checkpoint with the least validation loss; the last where none was evaluated. */
async function bestCheckpoint(runFolder: string): Promise<string | undefined> {
  let best: { dir: string; loss: number } | undefined
  for (const step of await checkpointSteps(runFolder, nodeFileSystem)) {
    const dir = join(runFolder, `checkpoint-${step}`)
    const { validationLoss = Number.POSITIVE_INFINITY } = await readState(dir, nodeFileSystem)
    if (!best || validationLoss <= best.loss) best = { dir, loss: validationLoss }
  }
  return best?.dir
}

/** The model of a checkpoint as a folder of its own. */
async function writeModel(from: string, to: string, files: Readonly<Record<string, Uint8Array>>): Promise<void> {
  await atomicFolder(to, async (folder) => {
    for (const name of ['config.json', 'model.safetensors'])
      await folder.file(name, createReadStream(join(from, name)) as AsyncIterable<Uint8Array>)
    for (const [name, content] of Object.entries(files)) await folder.file(name, content)
  })
}

/** Options of one call, which a run that goes on does not take over. */
const NOT_KEPT = { resume: undefined, out: undefined, stopAfter: undefined, threads: undefined, showData: undefined }

/** The optimizer with its states where the options want them. */
function inSmallSpace(optimizer: Optimizer, { lowrank, rank = 64 }: FinetuneOptions): Optimizer {
  switch (lowrank) {
    case 'galore':
    case 'fira':
    case 'apollo':
      return memory[lowrank](optimizer, { rank })
    case 'frugal':
    case 'badam':
      return memory[lowrank](optimizer)
    default:
      return optimizer
  }
}

/** A head that begins anew is learned whole. */
const HEADS = /^(score|classifier|bert\.pooler)\./

const adaptedBy = (model: FolderModel, rank: number, alpha = 2 * rank): memory.Lora<FolderModel> =>
  memory.lora(model, { rank, alpha, train: HEADS })

/** The model with the additions of a checkpoint in its weights, and the additions as PEFT keeps them. */
async function writeAdapted(
  from: string,
  out: string,
  adapted: memory.Lora<FolderModel>,
  folder: string,
  files: Readonly<Record<string, Uint8Array>>,
): Promise<void> {
  const checkpoint = await loadCheckpoint(from)
  try {
    const wanted = parameters(adapted)
    const loaded: Record<string, Tensor> = {}
    for (const { name, readPieces } of checkpoint.model) {
      const t = wanted[name]
      if (!t) continue
      loaded[name] = await loadTensor(t, readPieces)
    }
    const best = withTensors(adapted, loaded)
    const model = join(out, 'model')
    await saveModel(model, best.merged())
    for (const [name, content] of Object.entries(files)) await atomicWriteFile(join(model, name), content)
    await saveAdapter(join(out, 'adapter'), best, folder)
  } finally {
    await checkpoint.close()
  }
}

/**
 * Plans the fine-tuning of a model folder on a data file. The tuned model is in `model` below the run folder when the run has ended.
 *
 * @throws SteepestError with the option, file or line that is wrong
 */
export async function prepareFinetune(
  given: FinetuneOptions,
  context: LoadContext & { cwd?: string } = {},
): Promise<PreparedFinetune> {
  const cwd = context.cwd ?? process.cwd()
  const path = (p: string) => (isAbsolute(p) ? p : resolve(cwd, p))
  const resumed = given.resume === undefined ? undefined : await findCheckpoint(path(given.resume))
  const before = resumed && ((await readState(resumed.dir, nodeFileSystem)).state.run as FinetuneOptions | undefined)
  const options: FinetuneOptions = { ...before, ...given }
  for (const key of ['model', 'data'] as const)
    if (options[key] === undefined)
      throw new SteepestError('OPTION', {
        who: 'finetune',
        rule: key === 'model' ? 'a model folder must be named' : 'a data file must be named',
        fix: 'Type: steepest finetune MODEL_DIR data.jsonl',
      })
  useDevice(options.device)
  const threads = native().threads(options.threads)
  const [folder, file] = [path(options.model!), path(options.data!)]
  const validationData = options.validationData && path(options.validationData)
  const { model, rows, classes } = await load({ ...options, model: folder, data: file, validationData }, context)
  const { batch = 8, accumulate = 1, seed = 1, epochs = 3, lr = 5e-5, weightDecay = 0.01 } = options
  const loader = rows.loader({ batch, accumulate, seed })
  // Packing decides how many rows a step takes: an epoch is measured.
  const perEpoch = rows.loader({ batch, accumulate, seed }).skipEpoch()
  const steps = options.steps ?? Math.max(1, Math.round(epochs * perEpoch))
  const evalEvery = options.evalEvery ?? Math.max(1, Math.ceil(steps / 10))
  const saveEvery = options.saveEvery ?? evalEvery
  const warmup = Math.min(options.warmup ?? Math.ceil(steps / 20), steps)
  const plain = optimizerNamed(options.optimizer ?? 'adamw', {
    lr: schedule({ kind: 'linear', lr, warmup, steps }),
    ...(weightDecay > 0 ? { weightDecay, groups: [noDecay] } : {}),
  })
  const optimizer = inSmallSpace(plain, options)
  const adapted = options.lora === undefined ? undefined : adaptedBy(model, options.lora, options.loraAlpha)
  const whole: Trainable = adapted ?? model
  const trained = options.sampled === undefined ? whole : memory.sampled(whole, { ratio: options.sampled })
  const out = given.out ?? (resumed ? dirname(resumed.dir) : freshFolder(cwd, basename(file, extname(file))))
  if (!resumed && (await checkpointSteps(path(out))).length > 0)
    throw new SteepestError('OPTION', {
      who: out,
      rule: 'the folder already holds the checkpoints of a run',
      fix: `Go on with it by --resume ${out}, or give another --out`,
    })
  const files = await handedOn(folder)
  const count = Object.values(parameters(model)).reduce((n, t) => n + t.size, 0)
  const plan: Partial<Plan> = {
    model: `${model.constructor.name} of ${basename(folder)}`,
    parameters: count,
    data: `${basename(file)}: ${rows.count} rows, ${rows.validationCount} for validation${classes ? `, ${classes.problem === 'regression' ? 'numbers' : `${classes.names.length} classes`}` : ''}`,
    tokenizer: `of ${basename(folder)}`,
    batch,
    accumulate,
    context: rows.context,
    unit: rows.unit,
    steps,
    optimizer: optimizer.name,
    lr,
    schedule: 'linear',
    threads,
    out,
    chosen: Object.fromEntries(rows.notes.map((text, i) => [`note ${i + 1}`, text])),
  }
  const kept = { ...options, model: folder, data: file, steps, evalEvery, saveEvery, ...NOT_KEPT }

  async function* events({ signal }: { signal?: AbortSignal } = {}): AsyncGenerator<TrainEvent> {
    const run = train(trained, rows.slow ? prefetch(loader) : loader, {
      optimizer,
      clip: options.clip ?? 1,
      seed,
      steps,
      evalData: rows.evaluation(batch),
      evalEvery,
      metrics: metricsOf(model, classes),
      out: path(out),
      saveEvery,
      keep: options.keep ?? 1,
      config: configText(configOf(model)),
      tokenizer: files,
      resume: resumed?.dir,
      run: JSON.parse(JSON.stringify(kept)) as JsonRecord,
      patience: options.patience,
      stopAfter: options.stopAfter,
      signal,
      plan,
      memoryBudget: options.memory,
      allow: (options.allow ?? '').split(',').flatMap((name) => name.trim() || []) as never,
    })
    try {
      for await (const event of run) {
        if (event.type !== 'stop') {
          yield event
          continue
        }
        const ended = event.reason === 'done' || event.reason === 'earlyStopping'
        const best = ended ? await bestCheckpoint(path(out)) : undefined
        if (best && adapted) await writeAdapted(best, path(out), adapted, folder, files)
        else if (best) await writeModel(best, join(path(out), 'model'), files)
        yield best
          ? { ...event, path: join(path(out), 'model') }
          : { ...event, resume: `steepest finetune --resume ${shellQuoted(out)}` }
      }
    } finally {
      await rows.close()
    }
  }
  return { plan: plan as Plan, run: events, preview: () => rows.preview(5), close: () => rows.close() }
}
