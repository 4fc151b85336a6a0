import type { WrittenPiece } from '../train/generate/text.js'
import { type GenerateOptions, generateOptions } from '../train/options.js'
import { harmless } from '../train/terminal-text.js'
import { type Command, jsonFlag } from './support/command.js'
import { onInterrupt } from './support/interrupt.js'

/** Writes text with a trained model, piece by piece; `path` is a run folder or a checkpoint, by default the newest run. */
export type Generate = (
  path: string | undefined,
  options: GenerateOptions & { signal?: AbortSignal },
  cwd?: string,
) => AsyncIterable<WrittenPiece>

/** `steepest generate`. */
export function generateCommand(load: () => Promise<Generate>): Command {
  return {
    name: 'generate',
    summary: 'write text with a trained model',
    args: [{ name: '[checkpoint]', doc: 'run folder or checkpoint; by default that of the newest run' }],
    flags: [...generateOptions, jsonFlag],
    async run({ args, flags }, { out, env, cwd }) {
      const { json, ...options } = flags
      const generate = await load()
      const interrupt = onInterrupt(
        () => {},
        (code) => process.exit(code),
      )
      const prompt = options.prompt === undefined ? '' : String(options.prompt)
      // Control characters that the model writes must not reach a terminal; a file or pipe gets the text as it is.
      const show = (text: string) => out.write(out.isTTY && env.TERM !== 'dumb' ? harmless(text, true) : text)
      const line = (object: object) => out.write(`${JSON.stringify(object)}\n`)
      const several = options.prompts !== undefined || Number(options.samples ?? 1) > 1
      const begun = options.prompts === undefined && !options.chat ? prompt : ''
      // Texts that are written at once come one after the other.
      const texts = new Map<string, string>()
      if (!json && !several) show(begun)
      try {
        const pieces = generate(args[0], { ...(options as GenerateOptions), signal: interrupt.signal }, cwd)
        for await (const { prompt, sample, text, end } of pieces) {
          const name = `${prompt} ${sample}`
          const whole = (texts.get(name) ?? begun) + text
          texts.set(name, whole)
          const place = several ? { prompt, sample } : {}
          if (json) {
            if (text !== '') line({ type: 'piece', ...place, text })
            if (end) line({ type: 'stop', ...place, text: whole, end })
          } else if (!several) show(text)
          else if (end) show(`── ${prompt + 1}.${sample + 1}\n${whole}\n`)
        }
      } finally {
        interrupt.end()
      }
      if (!json && !several) out.write('\n')
      return interrupt.signal.aborted ? 130 : 0
    },
  }
}
