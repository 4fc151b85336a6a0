import { relative } from 'node:path'
import type { PaperEntry, PaperState } from '../study/catalogue.js'
import type { Plot } from '../study/contract.js'
import { studyLines } from '../study/draw.js'
import type { Judged, Summary } from '../study/judge.js'
import type { StudyResult } from '../study/result.js'
import type { Verdict } from '../study/run.js'
import { duration, small } from '../train/plot-numbers.js'
import { type Abilities, type Style, styled, wrapped } from '../train/terminal-text.js'

/** Columns that every terminal has. */
const WIDTH = 80
const INDENT = 8
const STATE_STYLE: Readonly<Record<PaperState, Style>> = {
  holds: 'green',
  'does not hold': 'red',
  'control passes': 'red',
  'not yet run': 'yellow',
  'not yet written': 'dim',
}

/** The list of papers, one a line. */
export function listLines(entries: readonly PaperEntry[], { color }: Abilities): string[] {
  const wide = Math.max(...entries.map((e) => e.name.length))
  const lines = entries.map(({ name, title, state }) => {
    const mark = styled(state.padEnd(16), STATE_STYLE[state], color)
    return `${name.padEnd(wide + 2)}${mark}${title}`
  })
  const holding = entries.filter((e) => e.state === 'holds').length
  const written = entries.filter((e) => e.state !== 'not yet written').length
  return [...lines, `${entries.length} papers, ${written} written, ${holding} hold. steepest paper NAME measures one`]
}

const value = (n: number): string => small(n)

/** The bound of a criterion in words: `at most 1.01`. */
export const boundWords = ({ atMost, atLeast }: Pick<Judged, 'atMost' | 'atLeast'>): string =>
  atMost === undefined ? `at least ${atLeast}` : `at most ${atMost}`

const OVER = { mean: '', median: ' (median)', every: ' (worst seed)' }

function numberText({ mean, spread, bySeed }: Summary): string {
  return bySeed.length === 1 ? value(mean) : `${value(mean)} ± ${value(spread)}  by seed ${bySeed.map(value).join(' ')}`
}

function paragraph(label: string, text: string): string[] {
  return wrapped(text, WIDTH - 12, 40).map((line, i) => `${(i === 0 ? label : '').padEnd(12)}${line}`)
}

/** Text with a mark of eight columns before its first line, which may be styled. */
function item(text: string, mark = ' '.repeat(INDENT)): string[] {
  return wrapped(text, WIDTH - INDENT, 40).map((line, i) => `${i === 0 ? mark : ' '.repeat(INDENT)}${line}`)
}

/** Everything that a study found, for people. */
export function resultLines(
  result: StudyResult,
  plot: Plot,
  verdict: Pick<Verdict, 'curves'>,
  { color, unicode, paths, cwd }: Abilities & { paths: { result: string; plot: string }; cwd: string },
): string[] {
  const { claim, criteria, controls, numbers, reports } = result
  const walked = result.verdict === 'walked'
  const good = (ok: boolean, yes: string, no: string) =>
    walked ? undefined : styled((ok ? yes : no).padEnd(INDENT), ok ? 'green' : 'red', color)
  const judged = (c: Judged, mark?: string) =>
    item(`${c.what}: ${value(c.measured)}${OVER[c.over]}, ${boundWords(c)}`, mark)
  const title = wrapped(`${claim.title}, ${claim.by}, ${claim.source}`, WIDTH, 40)
  const lines = [
    ...title.map((line) => styled(line, 'bold', color)),
    ...paragraph('claims', claim.says),
    '',
    ...wrapped(
      `measured with ${result.seeds.length === 1 ? 'seed' : 'seeds'} ${result.seeds.join(', ')}${walked ? ' at small sizes, which shows nothing but that it runs' : ''}`,
      WIDTH,
      40,
    ),
  ]
  for (const c of criteria) {
    lines.push(...judged(c, good(c.holds, 'ok', 'FAILED')), ...item(numberText(numbers[c.number])))
  }
  for (const control of controls) {
    lines.push(...wrapped(`control, which must fail: ${control.what}`, WIDTH, 40))
    for (const c of control.criteria) lines.push(...judged(c, good(!c.holds, 'fails', 'PASSES')))
  }
  const named = new Set(criteria.map((c) => c.number))
  const beside = Object.entries(numbers).filter(([key]) => !named.has(key))
  if (beside.length > 0) lines.push('beside it')
  for (const [key, summary] of beside) lines.push(...item(`${reports[key] ?? key}: ${numberText(summary)}`))
  lines.push('', ...studyLines(plot, verdict, { width: WIDTH, height: 14, unicode, color }), '')
  lines.push(...paragraph('not shown', claim.notShown))
  if (claim.found) lines.push(...paragraph('found', claim.found))
  const words = {
    holds: 'the claim holds',
    'does not hold': 'the claim does not hold',
    'control passes': 'a control passes, so that the check shows nothing',
    walked: 'it runs',
  }
  const verdictText = styled(words[result.verdict], result.verdict === 'holds' || walked ? 'green' : 'red', color)
  lines.push(
    `${verdictText} (${duration(result.seconds)}); ${relative(cwd, paths.result)}, ${relative(cwd, paths.plot)}`,
  )
  return lines
}
