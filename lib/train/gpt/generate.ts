import { existsSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { isAbsolute, join, resolve } from 'node:path'
import { native } from '../../addon.js'
import { loadTokenizer } from '../../data/index.js'
import { SteepestError } from '../../errors.js'
import { latestCheckpoint } from '../../io/checkpoint.js'
import { CausalLM } from '../../models/causal.js'
import { loadModel } from '../../models/hf.js'
import type { GenerateOptions } from '../options.js'
import { Sampler } from './sampler.js'

/** The run folder in `runs/` in which something was written last. */
async function newestRun(cwd: string): Promise<string> {
  const runs = join(cwd, 'runs')
  const names = existsSync(runs) ? await readdir(runs) : []
  const dated = await Promise.all(
    names.map(async (name) => ({ dir: join(runs, name), at: (await stat(join(runs, name))).mtimeMs })),
  )
  const newest = dated.sort((a, b) => b.at - a.at)[0]
  if (newest) return newest.dir
  throw new SteepestError('FILE', {
    who: 'generate',
    rule: 'there is no trained model yet',
    fix: 'Train one with: steepest train, or name a checkpoint',
  })
}

/** The folder with `config.json` and weights that a path means: itself, or the last whole checkpoint of a run. */
async function modelFolder(path: string): Promise<string> {
  if (existsSync(join(path, 'config.json'))) return path
  if (!existsSync(path))
    throw new SteepestError('FILE', { who: path, rule: 'there is no such run folder or checkpoint' })
  const { dir, skipped } = await latestCheckpoint(path)
  if (dir) return dir
  throw new SteepestError('CHECKPOINT', {
    who: path,
    rule: 'the folder has no whole checkpoint',
    got: skipped.map((s) => s.reason).join('; '),
    fix: 'Give a run folder or a checkpoint-N of one',
  })
}

/**
 * Writes text with a trained model, piece by piece.
 *
 * @param path a run folder, a checkpoint, or a Hugging Face folder of a language model; the newest run in `runs/` where not given
 */
export async function* generateText(
  path: string | undefined,
  options: GenerateOptions & { signal?: AbortSignal } = {},
  cwd = process.cwd(),
): AsyncGenerator<string> {
  const dir = await modelFolder(
    path === undefined ? await newestRun(cwd) : isAbsolute(path) ? path : resolve(cwd, path),
  )
  native().threads(options.threads)
  const tokenizer = await loadTokenizer(dir)
  const model = await loadModel(dir)
  if (!(model instanceof CausalLM))
    throw new SteepestError('ARGUMENT', {
      who: dir,
      rule: 'text is written by models that predict the next token',
      got: model.constructor.name,
    })
  const { endOfText } = tokenizer
  const ids = [...tokenizer.encode(options.prompt ?? '')]
  // The start of a text is what follows the end of another.
  if (ids.length === 0) ids.push(endOfText ?? tokenizer.encode('\n')[0] ?? 0)
  const sampler = new Sampler(model)
  const decoder = tokenizer.decodeStream({ skipSpecial: true })
  const { tokens = 200, temperature = 0.8, topK, topP, seed = 1, signal } = options
  const choice = { temperature, topK, topP, seed }
  try {
    let n = 0
    for await (const token of sampler.generate(ids, { ...choice, length: ids.length + tokens }, endOfText)) {
      if (signal?.aborted) return
      const piece = decoder.push(token)
      if (piece) yield piece
      if (++n >= tokens) break
    }
    const rest = decoder.end()
    if (rest) yield rest
  } finally {
    sampler.close()
  }
}
