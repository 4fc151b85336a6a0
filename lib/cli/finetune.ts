import { type FinetuneOptions, finetuneOptions } from '../train/finetune/options.js'
import type { PreparedFinetune } from '../train/finetune/prepare.js'
import { requireOneProcess } from '../train/parallel.js'
import { type Command, jsonFlag } from './support/command.js'
import { showPreparing, showRun } from './train.js'

/** Plans the fine-tuning of a model; that of the library, or a false one in tests. */
export type PrepareFinetune = (
  options: FinetuneOptions,
  context?: { cwd?: string; onProgress?: (what: string, done: number) => void },
) => Promise<PreparedFinetune>

/** `steepest finetune`. */
export function finetuneCommand(load: () => Promise<PrepareFinetune>): Command {
  return {
    name: 'finetune',
    summary: 'fine-tune a model of a Hugging Face folder on your own rows',
    args: [
      { name: '[model]', doc: 'folder with config.json, model.safetensors and tokenizer.json' },
      { name: '[data]', doc: 'rows to learn: .jsonl, .csv, .tsv, .parquet or .txt' },
    ],
    flags: [...finetuneOptions.filter((o) => o.key !== 'model' && o.key !== 'data'), jsonFlag],
    notes:
      'Rows have `text`; `prompt` and `completion`; `messages`; or `text` and `label`. The tuned model is in `model` below the run folder, and any\nHugging Face tool loads it. Ctrl+C once saves and stops, twice leaves at once.',
    async run(input, io) {
      const { args, flags } = input
      requireOneProcess('finetune', io.env)
      const { json: _, ...given } = flags
      const options = {
        ...given,
        ...(args[0] === undefined ? {} : { model: args[0] }),
        ...(args[1] === undefined ? {} : { data: args[1] }),
      } as FinetuneOptions
      const preparing = showPreparing(flags.json ? { ...io, err: { write() {} } } : io)
      const planned = await (await load())(options, { cwd: io.cwd, onProgress: preparing.onProgress }).finally(
        preparing.end,
      )
      if (options.showData) {
        for (const text of planned.preview()) io.out.write(flags.json ? `${JSON.stringify({ text })}\n` : `${text}\n\n`)
        await planned.close()
        return 0
      }
      return showRun(planned, input, options.logEvery, io)
    },
  }
}
