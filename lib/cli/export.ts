import { isAbsolute, resolve } from 'node:path'
import { SteepestError } from '../errors.js'
import type { ExportOptions } from '../models/export.js'
import type { OptionSpec } from '../train/spec.js'
import { type Command, jsonFlag } from './support/command.js'

/** Writes the model of a folder anew; that of the library, or a false one in tests. */
export type Export = (folder: string, out: string, options: ExportOptions) => Promise<void>

// biome-ignore format: an option is a line
const exportOptions = [
  { key: 'out', type: 'text', group: 'output', doc: 'folder, or a file that ends in .gguf', value: 'PATH' },
  { key: 'adapter', type: 'text', group: 'output', doc: 'low-rank additions in the format of PEFT, to be added to the weights', value: 'DIR' },
  { key: 'type', type: 'choice', choices: ['f32', 'f16', 'bf16', 'q8_0'], group: 'output', doc: 'matrices of a .gguf file', chosen: 'f16' },
  { key: 'dtype', type: 'choice', choices: ['float32', 'bfloat16'], group: 'output', doc: 'weights of a folder', chosen: 'those that it has' },
] as const satisfies readonly OptionSpec[]

/** `steepest export`. */
export function exportCommand(load: () => Promise<Export>): Command {
  return {
    name: 'export',
    summary: 'write a model anew: with its LoRA merged, or as a GGUF file for llama.cpp',
    args: [{ name: '[model]', doc: 'folder with config.json and model.safetensors' }],
    flags: [...exportOptions, jsonFlag],
    notes: 'GGUF files hold GPT-2, Llama, Mistral and Qwen2 with byte-level tokenizers.',
    async run({ args, flags }, { out, cwd }) {
      const { json, out: to, adapter, ...options } = flags
      const path = (p: string) => (isAbsolute(p) ? p : resolve(cwd, p))
      if (args[0] === undefined || to === undefined)
        throw new SteepestError('OPTION', {
          who: 'export',
          rule: args[0] === undefined ? 'a model folder must be named' : '--out must be given',
          fix: 'Type: steepest export MODEL_DIR --out model.gguf',
        })
      const given = { ...options, ...(adapter === undefined ? {} : { adapter: path(String(adapter)) }) }
      await (await load())(path(args[0]), path(String(to)), given as ExportOptions)
      out.write(json ? `${JSON.stringify({ type: 'done', path: path(String(to)) })}\n` : `written: ${String(to)}\n`)
      return 0
    },
  }
}
