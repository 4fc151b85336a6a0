import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { paperCommand } from '../../lib/cli/paper.js'
import { catalogue, type Paper, paperNamed, runStudy, studyLines, studySvg, summarize } from '../../lib/study/index.js'
import { cli, temporaryFolder } from '../cli/cli-fake.js'

/** A paper whose numbers are given: of the experiment, and of its control, by seed. */
function paper(
  own: readonly number[],
  without: readonly number[],
  over?: 'mean' | 'median' | 'every',
  extra = {},
): Paper {
  return {
    claim: {
      title: 'On Numbers',
      by: 'Nobody 1900',
      source: 'a drawer',
      says: 'It is small.',
      criteria: [{ number: 'size', what: 'how large it is', atMost: 1, over }],
      notShown: 'Everything else.',
      ...extra,
    },
    experiment: ({ seed }) => ({
      numbers: { size: own[seed], seed },
      curves: {
        it: [
          { x: 0, y: seed },
          { x: 1, y: 1 },
        ],
      },
    }),
    control: { what: 'made large', fails: ['size'], experiment: ({ seed }) => ({ numbers: { size: without[seed] } }) },
    plot: { x: 'time', y: 'size' },
  }
}
const seeds = [0, 1, 2]

describe('a verdict', () => {
  test('holds where every criterion is met and every control fails', async () => {
    const { verdict, criteria, controls, numbers } = await runStudy(paper([0.5, 1, 1.2], [2, 2, 2]), { seeds })
    expect(verdict).toBe('holds')
    expect(criteria[0]).toMatchObject({ over: 'mean', measured: 0.9, holds: true })
    expect(controls[0]).toMatchObject({ what: 'made large', fails: true })
    expect(numbers.size.spread).toBeCloseTo(Math.sqrt((0.16 + 0.01 + 0.09) / 2))
  })

  test.each([
    ['mean', [0.9, 0.9, 1.3], 'does not hold'],
    ['median', [0.9, 0.9, 1.3], 'holds'],
    ['every', [0.9, 0.9, 1.3], 'does not hold'],
    ['every', [0.9, 0.9, 1], 'holds'],
    ['median', [Number.NaN, Number.NaN, 0], 'does not hold'],
    ['every', [0, Number.NaN, 0], 'does not hold'],
    ['mean', [0, Number.POSITIVE_INFINITY, 0], 'does not hold'],
  ] as const)('over the %s of %j: %s', async (over, own, expected) => {
    expect((await runStudy(paper(own, [2, 2, 2], over), { seeds })).verdict).toBe(expected)
  })

  test.each([
    ['mean', [1.1, 1.1, 0.7], 'control passes'],
    ['median', [1.1, 1.1, 0.7], 'holds'],
    ['every', [1.1, 1.1, 0.7], 'control passes'],
    ['every', [1.1, 1.1, 1.1], 'holds'],
  ] as const)('a control of which the %s must fail, at %j: %s', async (over, without, expected) => {
    expect((await runStudy(paper([0, 0, 0], without, over), { seeds })).verdict).toBe(expected)
  })

  test('is none where the study was quick, whatever the numbers', async () => {
    expect((await runStudy(paper([9], [0]), { seeds: [0], quick: true })).verdict).toBe('walked')
  })

  test('needs three seeds, all different, a control, and numbers that are there', async () => {
    await expect(runStudy(paper([0, 0], [2, 2]), { seeds: [0, 1] })).rejects.toThrow('3 seeds or more')
    await expect(runStudy(paper([0, 0], [2, 2]), { seeds: [0, 1, 1] })).rejects.toThrow('different whole numbers')
    const { control: _, ...bare } = paper([0, 0, 0], [2, 2, 2])
    await expect(runStudy({ ...bare, control: [] }, { seeds })).rejects.toThrow('a control that fails one')
    const absent = { ...bare, control: { what: 'x', fails: ['seize'], experiment: () => ({ numbers: {} }) } }
    await expect(runStudy(absent, { seeds })).rejects.toThrow('There are size')
    const silent = { ...bare, control: { what: 'x', fails: ['size'], experiment: () => ({ numbers: {} }) } }
    await expect(runStudy(silent, { seeds })).rejects.toThrow('every outcome must have its number')
  })

  test('stops when it is told to', async () => {
    const stop = new AbortController()
    const run = runStudy(paper([0, 0, 0], [2, 2, 2]), { seeds, signal: stop.signal, onTrial: () => stop.abort() })
    await expect(run).rejects.toMatchObject({ code: 'ABORTED' })
  })

  test('summaries of an even number of values', () => {
    expect(summarize([4, 1, 3, 2])).toMatchObject({ mean: 2.5, median: 2.5 })
    expect(summarize([7])).toMatchObject({ mean: 7, median: 7, spread: 0 })
  })
})

describe('plots', () => {
  const curves = {
    a: [
      [
        { x: 1, y: 10 },
        { x: 10, y: 1000 },
      ],
      [
        { x: 1, y: 30 },
        { x: 10, y: 3000 },
      ],
    ],
  }
  test('are the mean over the seeds, each seed faintly behind it', () => {
    const svg = studySvg('T', { x: 'n', y: 'v', logX: true, logY: true }, { curves })
    expect(svg).toContain('<title>T</title>')
    expect(svg.match(/stroke-opacity/g)).toHaveLength(2)
  })
  test('in a terminal show powers of ten', () => {
    const plot = { x: 'n', y: 'v', logX: true, logY: true }
    const lines = studyLines(plot, { curves }, { width: 60, height: 8, unicode: true, color: false })
    expect(lines[0]).toBe('o a')
    expect(lines.at(-1)).toBe('log10 of v by log10 of n')
    expect(lines.join('\n')).toContain('3.0')
  })
})

describe('steepest paper', () => {
  const commands = (own: readonly number[], without: readonly number[]) => [
    paperCommand(async () => paper(own, without)),
  ]
  const name = catalogue().find((e) => e.state !== 'not yet written')!.name

  test('lists all with their state', async () => {
    const { code, out } = await cli(commands([], []), ['paper'])
    expect(code).toBe(0)
    for (const entry of catalogue()) expect(out).toContain(`${entry.name} `)
    expect(out).toMatch(/icl-gd +not yet written/)
    const lines = (await cli(commands([], []), ['paper', '--json'])).out.trim().split('\n')
    expect(lines.map((l) => (JSON.parse(l) as { name: string }).name)).toEqual(catalogue().map((e) => e.name))
  })

  test('says the near name, and which are not written', async () => {
    const wrong = await cli(commands([], []), ['paper', `${name}x`])
    expect([wrong.code, wrong.err]).toEqual([2, expect.stringContaining(`Did you mean \`${name}\`?`)])
    expect(() => paperNamed('icl-gd', catalogue())).toThrow('is not written yet')
  })

  test('writes result and plot, and exits with 0 where the claim holds', async () => {
    const folder = temporaryFolder()
    const { code, out } = await cli(commands([0.5, 0.6, 0.7], [2, 2, 2]), ['paper', name, '--out', folder])
    expect(code).toBe(0)
    expect(out).toContain('the claim holds')
    expect(out).toContain('not shown   Everything else.')
    const result = JSON.parse(readFileSync(join(folder, 'result.json'), 'utf8'))
    expect(result).toMatchObject({ name, verdict: 'holds', seeds, numbers: { size: { bySeed: [0.5, 0.6, 0.7] } } })
    for (const key of ['claim', 'criteria', 'controls', 'versions', 'machine', 'seconds'])
      expect(result[key]).toBeDefined()
    expect(readFileSync(join(folder, 'plot.svg'), 'utf8')).toContain('</svg>')
  })

  test('takes the seeds from where it is told', async () => {
    const numbers = [9, 9, 0.5, 0.6, 0.7]
    const later = await cli(commands(numbers, [0, 0, 2, 2, 2]), ['paper', name, '--from', '2'])
    expect([later.code, later.out]).toEqual([0, expect.stringContaining('seeds 2, 3, 4')])
  })

  test('exits with 1 where it does not hold, and where a control passes', async () => {
    const failed = await cli(commands([2, 2, 2], [2, 2, 2]), ['paper', name])
    expect([failed.code, failed.out]).toEqual([1, expect.stringContaining('the claim does not hold')])
    const idle = await cli(commands([0, 0, 0], [0, 0, 0]), ['paper', name, '--json'])
    expect(idle.code).toBe(1)
    const last = JSON.parse(idle.out.trim().split('\n').at(-1)!) as { type: string; verdict: string }
    expect(last).toMatchObject({ type: 'result', verdict: 'control passes' })
  })

  test('--quick concludes nothing, and fewer than three seeds are refused', async () => {
    const quick = await cli(commands([9], [0]), ['paper', name, '--quick'])
    expect([quick.code, quick.out]).toEqual([0, expect.stringContaining('it runs')])
    const few = await cli(commands([0], [2]), ['paper', name, '--seeds', '2'])
    expect([few.code, few.err]).toEqual([2, expect.stringContaining('a conclusion needs 3 seeds or more')])
  })
})
