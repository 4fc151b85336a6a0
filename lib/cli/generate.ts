import { type GenerateOptions, generateOptions } from '../train/options.js'
import { harmless } from '../train/terminal-text.js'
import { type Command, jsonFlag } from './support/command.js'
import { onInterrupt } from './support/interrupt.js'

/** Writes text with a trained model, piece by piece; `path` is a run folder or a checkpoint, by default the newest run. */
export type Generate = (
  path: string | undefined,
  options: GenerateOptions & { signal?: AbortSignal },
  cwd?: string,
) => AsyncIterable<string>

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
      let text = options.prompt === undefined ? '' : String(options.prompt)
      // Control characters that the model writes must not reach a terminal; a file or pipe gets the text as it is.
      const show = (piece: string) => (out.isTTY && env.TERM !== 'dumb' ? harmless(piece, true) : piece)
      try {
        if (!json) out.write(show(text))
        const pieces = generate(args[0], { ...(options as GenerateOptions), signal: interrupt.signal }, cwd)
        for await (const piece of pieces) {
          text += piece
          out.write(json ? `${JSON.stringify({ type: 'piece', text: piece })}\n` : show(piece))
        }
      } finally {
        interrupt.end()
      }
      out.write(json ? `${JSON.stringify({ type: 'stop', text })}\n` : '\n')
      return interrupt.signal.aborted ? 130 : 0
    },
  }
}
