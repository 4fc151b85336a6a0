import { resolve } from 'node:path'
import { SteepestError } from '../errors.js'
import { catalogue, paperNamed } from '../study/catalogue.js'
import type { Paper } from '../study/contract.js'
import { abilities, styled } from '../train/terminal-text.js'
import { listLines, resultLines } from './paper-print.js'
import { type Command, type Io, jsonFlag } from './support/command.js'
import { onInterrupt } from './support/interrupt.js'

const flags = [
  {
    key: 'quick',
    type: 'switch',
    group: 'run',
    default: false,
    doc: 'only see that it runs: small sizes, one seed, no verdict',
  },
  {
    key: 'seeds',
    type: 'integer',
    group: 'run',
    min: 1,
    max: 1000,
    chosen: '3; 1 with --quick',
    doc: 'repetitions, each with a seed of its own',
  },
  {
    key: 'from',
    type: 'integer',
    group: 'run',
    min: 0,
    max: 1_000_000,
    chosen: '0',
    doc: 'the first seed; the others follow it',
  },
  {
    key: 'out',
    type: 'text',
    group: 'output',
    value: 'DIR',
    chosen: 'runs/paper-NAME',
    doc: 'folder for result.json and plot.svg',
  },
  jsonFlag,
] as const

function list(asJson: boolean, { out, env }: Io): number {
  const entries = catalogue()
  if (asJson) {
    for (const { name, title, state, result } of entries) {
      out.write(
        `${JSON.stringify({ type: 'paper', name, title, state, commit: result?.commit, seeds: result?.seeds })}\n`,
      )
    }
  } else out.write(`${listLines(entries, abilities(out, env)).join('\n')}\n`)
  return 0
}

/** `steepest paper`; `load` gives the module of a paper. */
export function paperCommand(load: (name: string) => Promise<Paper>): Command {
  return {
    name: 'paper',
    summary: "a paper's claim, measured on this machine; without a name, all papers and how they stand",
    args: [{ name: '[name]', doc: 'a paper of the list' }],
    flags,
    notes:
      'Exits with 1 where the claim does not hold, or where a control, which lacks what the claim is about, does not fail.',
    async run({ args: [name], flags: { quick, seeds, from, out: folder, json } }, io) {
      const { out, err, env, cwd } = io
      if (name === undefined) return list(json === true, io)
      paperNamed(name, catalogue())
      const { runStudy } = await import('../study/run.js')
      const { resultOf, writeStudy } = await import('../study/result.js')
      const paper = await load(name)
      const able = abilities(out, env)
      const say = (record: object) => out.write(`${JSON.stringify(record)}\n`)
      const { signal, end } = onInterrupt(
        () => err.write('stops after this repetition; once more leaves at once\n'),
        (code) => process.exit(code),
      )
      try {
        const verdict = await runStudy(paper, {
          quick: quick === true,
          seeds: Array.from({ length: Number(seeds ?? (quick ? 1 : 3)) }, (_, i) => Number(from ?? 0) + i),
          signal,
          onTrial(what, seed, control) {
            if (json) say({ type: 'trial', what, seed, control })
            else err.write(styled(`${what} ${seed}${control === undefined ? '' : `: ${control}`}\n`, 'dim', able.color))
          },
        })
        const result = resultOf(name, paper.claim, verdict)
        const paths = await writeStudy(
          resolve(cwd, String(folder ?? `runs/paper-${name}`)),
          result,
          paper.plot,
          verdict.curves,
        )
        if (json) say({ type: 'result', ...result, paths })
        else out.write(`${resultLines(result, paper.plot, verdict, { ...able, paths, cwd }).join('\n')}\n`)
        return verdict.verdict === 'holds' || verdict.verdict === 'walked' ? 0 : 1
      } catch (error) {
        if (error instanceof SteepestError && error.code === 'ABORTED') return 130
        throw error
      } finally {
        end()
      }
    },
  }
}
