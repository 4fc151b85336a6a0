import { relative } from 'node:path'
import { SteepestError } from '../errors.js'
import { abilities, styled } from '../train/terminal-text.js'
import type { Checker, Comparison } from './fixtures/checker.js'
import { type Found, walk } from './fixtures/walk.js'
import { type Command, jsonFlag } from './support/command.js'
import { sentence } from './support/failure.js'

/** One line of the report. */
interface Line {
  type: 'fixture'
  file: string
  kind: string
  what: string
  /** Largest error relative to the largest absolute value expected; absent where nothing was compared. */
  error?: number
  bound?: number
  ok: boolean
}

const holds = ({ error, bound, ok }: Comparison): boolean => ok ?? error <= bound

async function linesOf(found: Found, checkers: readonly Checker[], name: (path: string) => string): Promise<Line[]> {
  if (found.is === 'documentation') {
    return [{ type: 'fixture', file: name(found.path), kind: 'documentation', what: 'nothing to compare', ok: true }]
  }
  const path = found.is === 'unknown' ? found.path : found.fixture.path
  const failed = (kind: string, what: string): Line[] => [{ type: 'fixture', file: name(path), kind, what, ok: false }]
  if (found.is === 'unknown') return failed('unknown', found.why)
  const checker = checkers.find((c) => c.recognizes(found.fixture))
  if (!checker) return failed('unknown', 'no checker knows contents like these')
  try {
    const compared = await checker.check(found.fixture)
    if (compared.length === 0) return failed(checker.kind, 'nothing in it could be compared')
    return compared.map((c) => ({
      type: 'fixture',
      file: name(path),
      kind: checker.kind,
      what: c.what,
      error: c.error,
      bound: c.bound,
      ok: holds(c),
    }))
  } catch (error) {
    if (!(error instanceof Error)) throw error
    return failed(checker.kind, sentence(error))
  }
}

/** `steepest fixtures`. */
export function fixturesCommand(load: () => Promise<readonly Checker[]>): Command {
  return {
    name: 'fixtures',
    summary: 'check golden data: every file below the folders, told apart by its contents',
    args: [{ name: '<dir...>', doc: 'folders or files' }],
    flags: [jsonFlag],
    async run({ args, flags }, { out, env, cwd }) {
      const checkers = await load()
      const { color } = abilities(out, env)
      const name = (path: string) => relative(cwd, path) || path
      let [files, failures] = [0, 0]
      for (const found of args.flatMap((dir) => walk(dir, cwd))) {
        const lines = await linesOf(found, checkers, name)
        if (found.is !== 'documentation') files++
        if (lines.some((line) => !line.ok)) failures++
        for (const line of lines) {
          if (flags.json) {
            out.write(`${JSON.stringify(line)}\n`)
            continue
          }
          const mark = line.ok ? styled('ok', 'green', color) : styled('FAILED', 'red', color)
          const error =
            line.error === undefined ? '' : `  error ${line.error.toExponential(1)} of ${line.bound?.toExponential(0)}`
          out.write(`${mark}  ${line.file}  ${line.kind}: ${line.what}${error}\n`)
        }
      }
      if (files === 0) {
        throw new SteepestError('FILE', {
          who: args.join(' '),
          rule: 'there is no fixture here',
          fix: 'Name a folder that holds some',
        })
      }
      if (flags.json) out.write(`${JSON.stringify({ type: 'stop', files, failures })}\n`)
      else out.write(`${files} fixtures, ${failures === 0 ? 'all hold' : `${failures} failed`}\n`)
      return failures === 0 ? 0 : 1
    },
  }
}
