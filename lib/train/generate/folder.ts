import { existsSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { isAbsolute, join, resolve } from 'node:path'
import { native } from '../../addon.js'
import { useDevice } from '../../device.js'
import { ChatTemplate } from '../../data/chat.js'
import type { Message } from '../../data/examples.js'
import { loadTokenizer } from '../../data/index.js'
import { readRows, rowName } from '../../data/rows.js'
import { SteepestError } from '../../errors.js'
import { latestCheckpoint } from '../../io/checkpoint.js'
import { readSmallFile } from '../../io/read.js'
import { loadModel } from '../../models/hf.js'
import type { GenerateOptions } from '../options.js'
import { endsOf, generate, type WrittenPiece } from './text.js'

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

/** Prompts of a file's rows: their `prompt` or `text`, or their `messages` by the chat template of the model. */
async function promptsOf(path: string, template: ChatTemplate | undefined): Promise<string[]> {
  const out: string[] = []
  for await (const { fields, line } of readRows(path)) {
    const { prompt = fields.text, messages } = fields
    if (typeof prompt === 'string') out.push(prompt)
    else if (Array.isArray(messages) && template) out.push(template.render(messages as Message[], true))
    else
      throw new SteepestError('DATA', {
        who: rowName(path, line),
        rule: 'a row must have `prompt` or `text`, or `messages` where the model has a chat template',
        got: Object.keys(fields).join(', '),
      })
  }
  return out
}

/** Line ends and tabs as they are typed on a command line. */
const unescaped = (text: string): string =>
  text.replace(/\\([nt\\])/g, (_, c: string) => ({ n: '\n', t: '\t' })[c] ?? '\\')

/**
 * Writes text with a trained model, piece by piece.
 *
 * @param path a run folder, a checkpoint, or a Hugging Face folder of a language model; the newest run in `runs/` where not given
 */
export async function* generateText(
  path: string | undefined,
  options: GenerateOptions & { signal?: AbortSignal } = {},
  cwd = process.cwd(),
): AsyncGenerator<WrittenPiece> {
  const absolute = (p: string) => (isAbsolute(p) ? p : resolve(cwd, p))
  const dir = await modelFolder(path === undefined ? await newestRun(cwd) : absolute(path))
  const { prompt = '', prompts: file, chat, threads, device, stop, signal, ...choice } = options
  const template = chat || file !== undefined ? await ChatTemplate.of(dir) : undefined
  if (chat && !template)
    throw new SteepestError('OPTION', {
      who: dir,
      rule: 'a conversation needs a chat template, and the folder has none',
      fix: 'Leave --chat out, or put a chat_template.jinja into the folder',
    })
  const said = chat ? template!.render([{ role: 'user', content: prompt }], true) : prompt
  const tokenizer = await loadTokenizer(dir)
  const prompts = (file === undefined ? [said] : await promptsOf(absolute(file), template)).map((text) =>
    // A template writes the special tokens itself.
    chat ? [...tokenizer.encode(text)] : text,
  )
  useDevice(device)
  native().threads(threads)
  const model = await loadModel(dir)
  const settings = join(dir, 'generation_config.json')
  const generation = existsSync(settings)
    ? (JSON.parse(new TextDecoder().decode(await readSmallFile(settings))) as Record<string, unknown>)
    : undefined
  const ends = endsOf(tokenizer, generation, model.origin?.get('config'))
  const stops = stop === undefined ? [] : stop.split('|').map(unescaped)
  yield* generate(model, tokenizer, prompts, { ...choice, stop: stops, ends, signal })
}
