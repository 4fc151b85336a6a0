// `npm run papers -- NAME… [--from SEED]`: measures papers as `steepest paper` does and keeps result and plot in papers/results; then, and without a name
// only this, writes docs/papers.md from the results that are there. Commit first: a result names the commit that it was measured at.
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

const cell = (text) => text.replaceAll('|', '\\|').replaceAll('\n', ' ')
const number = (n) => {
  if (n === null || !Number.isFinite(n)) return 'not finite'
  const size = Math.abs(n)
  return n === 0
    ? '0'
    : size >= 1e4 || size < 1e-2
      ? n.toExponential(1).replace('e+', 'e')
      : String(Number(n.toPrecision(3)))
}
const bound = ({ atMost, atLeast }) => (atMost === undefined ? `≥ ${number(atLeast)}` : `≤ ${number(atMost)}`)
const measured = (c) => `${c.what}: **${number(c.measured)}** (${bound(c)})`
const control = (c) =>
  `${c.what}: ${c.criteria.map((j) => `${number(j.measured)}, must not be ${bound(j)}`).join('; ')}`

/** The page of all papers, from the entries of the catalogue. */
export function page(entries) {
  const run = entries.filter((e) => e.result)
  const lines = [
    '# Papers',
    '',
    'Each of these files measures what a paper claims, at the size of a laptop: `npx steepest paper NAME`. It ends with an error where the',
    'claim does not hold, or where a control, which lacks what the claim is about, does not fail. This page is written by',
    '`npm run papers` from the results in [papers/results](../papers/results).',
    '',
    '| Paper | State | Claim | Measured (bound) | Controls | Seeds, time |',
    '|---|---|---|---|---|---|',
    ...run.map(({ name, state, result: r }) => {
      const source = `[\`${name}\`](../papers/${name}.ts)`
      const what = `${r.claim.title}, ${r.claim.by}, ${r.claim.source}`
      const plot = `[plot](../papers/results/${name}.svg)`
      const columns = [`${source} ${what}`, state, r.claim.says]
      columns.push(r.criteria.map(measured).join('<br>'), r.controls.map(control).join('<br>'))
      columns.push(`${seedsOf(r.seeds)}, ${number(r.seconds)} s, ${plot}`)
      return `| ${columns.map(cell).join(' | ')} |`
    }),
    '',
    '## What is not shown, and what was found',
    '',
    ...run.map(
      ({ name, result: { claim } }) =>
        `- \`${name}\`: not shown: ${claim.notShown}${claim.found ? ` Found: ${claim.found}` : ''}`,
    ),
    '',
    `Not measured yet: ${
      entries
        .filter((e) => e.state === 'not yet run')
        .map((e) => `\`${e.name}\``)
        .join(', ') || 'none'
    }.`,
    `Not written yet: ${
      entries
        .filter((e) => e.state === 'not yet written')
        .map((e) => `\`${e.name}\``)
        .join(', ') || 'none'
    }.`,
  ]
  return `${lines.join('\n')}\n`
}

/** Seeds in words: `3 (100–102)`. */
const seedsOf = (seeds) => `${seeds.length} (${seeds[0]}–${seeds[seeds.length - 1]})`

async function main(args) {
  const { values, positionals: names } = parseArgs({
    args,
    allowPositionals: true,
    options: { from: { type: 'string' } },
  })
  const results = join(root, 'papers', 'results')
  mkdirSync(results, { recursive: true })
  let failed = false
  for (const name of names) {
    const out = mkdtempSync(join(tmpdir(), 'steepest-paper-'))
    const from = values.from === undefined ? [] : ['--from', values.from]
    const command = [join(root, 'dist', 'cli', 'main.js'), 'paper', name, '--out', out, ...from]
    const done = spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit' })
    if (done.status === 0 || done.status === 1) {
      copyFileSync(join(out, 'result.json'), join(results, `${name}.json`))
      copyFileSync(join(out, 'plot.svg'), join(results, `${name}.svg`))
    }
    failed ||= done.status !== 0
    rmSync(out, { recursive: true, force: true })
  }
  const { catalogue } = await import(join(root, 'dist', 'study', 'catalogue.js'))
  writeFileSync(join(root, 'docs', 'papers.md'), page(catalogue()))
  process.exitCode = failed ? 1 : 0
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2))
