import { type Finding, inspectMachine } from '../train/machine.js'
import { abilities, styled } from '../train/terminal-text.js'
import type { OptionSpec } from '../train/spec.js'
import { type Command, jsonFlag } from './support/command.js'

const deviceFlag = {
  key: 'device',
  type: 'choice',
  choices: ['cpu', 'cuda'],
  group: 'run',
  default: 'cpu',
  doc: 'what is looked at closer; cuda: the GPU, what has a kernel, and whether it computes as the CPU does',
} as const satisfies OptionSpec

/** `steepest doctor`; `measure` computes for about two seconds, and is told only of a native part that loads. */
export function doctorCommand(
  inspect: (folder: string) => Finding[] = inspectMachine,
  measure: () => Promise<Finding[]> = async () => [],
  gpu: () => Promise<Finding[]> = async () => (await import('../train/device-check.js')).inspectDevice(),
): Command {
  return {
    name: 'doctor',
    summary: 'what steepest finds on this machine, and a short test of its speed',
    flags: [deviceFlag, jsonFlag],
    async run({ flags }, { out, env, cwd }) {
      const { color } = abilities(out, env)
      let healthy = true
      const say = (findings: readonly Finding[]) => {
        for (const { name, value, ok, fix } of findings) {
          healthy &&= ok
          if (flags.json) {
            out.write(`${JSON.stringify({ type: 'finding', name, value, ok, ...(ok ? {} : { fix }) })}\n`)
            continue
          }
          const mark = ok ? styled('ok', 'green', color) : styled('!!', 'red', color)
          out.write(`${mark}  ${name.padEnd(13)}${value}${ok || !fix ? '' : `. ${fix}`}\n`)
        }
      }
      const found = inspect(cwd)
      say(found)
      if (found.every((f) => f.name !== 'native part' || f.ok)) say(await (flags.device === 'cuda' ? gpu() : measure()))
      return healthy ? 0 : 1
    },
  }
}
