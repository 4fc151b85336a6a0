import { describe, expect, test } from 'vitest'
import { drawCurves } from '../../lib/train/curve.js'
import { bytes, duration, grouped, quantity, short, small, tickLabel, ticks } from '../../lib/train/plot-numbers.js'
import { follow, History, newProgress, secondsLeft } from '../../lib/train/progress.js'
import { plotSvg } from '../../lib/train/svg.js'
import { lossSvg } from '../../lib/train/svg-loss.js'
import { fakeRun, start, stepEvent } from './terminal-fake.js'

describe('numbers for people', () => {
  test('ticks are 1, 2 or 5 times a power of ten and inside the interval', () => {
    expect(ticks(0, 10, 5).values).toEqual([0, 2, 4, 6, 8, 10])
    expect(ticks(2.1, 8.3, 3).values).toEqual([5])
    expect(ticks(-1, 1, 4).values).toEqual([-1, -0.5, 0, 0.5, 1])
    expect(ticks(3, 3, 4)).toEqual({ values: [3], step: 0 })
    expect(ticks(Number.NaN, 1, 4).values).toEqual([])
  })

  test('tick labels have the digits that tell neighbours apart', () => {
    expect([0, 0.5, 1].map((v) => tickLabel(v, 0.5))).toEqual(['0', '0.5', '1.0'])
    expect([1000, 1500].map((v) => tickLabel(v, 500))).toEqual(['1.0k', '1.5k'])
    expect(tickLabel(2e6, 1e6)).toBe('2M')
    expect(tickLabel(1e-7, 1e-7)).toBe('1e-7')
    expect(tickLabel(-2500, 500)).toBe('-2.5k')
  })

  test('sizes, counts and times', () => {
    expect([12, 1240, 999_600, 12_400, 301_000].map(short)).toEqual(['12', '1.24k', '1M', '12.4k', '301k'])
    expect([12, 412e6, 1.25e9].map(bytes)).toEqual(['12 B', '412 MB', '1.25 GB'])
    expect(quantity(2.1e11, 'FLOP/s')).toBe('210 GFLOP/s')
    expect(grouped(1234567)).toBe('1,234,567')
    expect([7, 751, 3723, 274_200, Number.NaN].map(duration)).toEqual(['0:07', '12:31', '1:02:03', '3d 04:10', '-:--'])
    expect([6e-4, 5.81e-4, 0.92, 12.34, 0].map(small)).toEqual(['6e-4', '5.81e-4', '0.920', '12.3', '0'])
  })
})

describe('the course of a run', () => {
  test('a history of any length stays bounded, in order, with the mean kept', () => {
    const history = new History()
    const count = 100_000
    for (let i = 1; i <= count; i++) history.add(i, i)
    expect(history.points.length).toBeLessThan(2048)
    expect(history.points.every((p, i) => i === 0 || p.step > history.points[i - 1].step)).toBe(true)
    expect(history.points.every((p) => Math.abs(p.step - p.value) < 1e-6)).toBe(true)
    history.add(count + 1, Number.NaN)
    expect(history.points.every((p) => Number.isFinite(p.value))).toBe(true)
  })

  test('the smoothed loss has no bias at the start and follows', () => {
    const progress = newProgress()
    follow(progress, stepEvent(1, { loss: 8 }))
    expect(progress.smoothedLoss).toBeCloseTo(8, 12)
    for (let step = 2; step < 300; step++) follow(progress, stepEvent(step, { loss: 2 }))
    expect(progress.smoothedLoss).toBeCloseTo(2, 4)
  })

  test('the time left counts only what this process has done', () => {
    const progress = newProgress()
    follow(progress, { ...start, steps: 400, fromStep: 200 })
    expect(secondsLeft(progress)).toBeNaN()
    follow(progress, stepEvent(250, { seconds: 100 }))
    expect(secondsLeft(progress)).toBe(300)
  })
})

describe('curves of characters', () => {
  const line = Array.from({ length: 11 }, (_, i) => ({ step: i * 10, value: 10 - i }))

  test('a falling line in braille', () => {
    expect(drawCurves([{ points: line }], { width: 40, height: 6, unicode: true })).toMatchInlineSnapshot(`
      [
        "10 ┤⠉⠒⠒⠤⢄⡀",
        "   │     ⠈⠑⠒⠤⠤⣀⡀",
        "   │           ⠈⠉⠑⠒⠤⣀",
        " 5 ┤                 ⠉⠑⠒⠤⢄⣀⡀",
        "   │                       ⠈⠉⠒⠒⠤⢄⡀",
        " 0 ┤                             ⠈⠑⠒⠤⠤⣀",
        "   └┬────────────────┬────────────────┬",
        "    0                50              100",
      ]
    `)
  })

  test('two curves in ASCII, one with marks', () => {
    const other = line.map(({ step }) => ({ step, value: 5 }))
    const curves = [{ points: line }, { points: other, mark: 'o' }]
    expect(drawCurves(curves, { width: 40, height: 8, unicode: false })).toMatchInlineSnapshot(`
      [
        "10 +..",
        "   |  .......",
        "   |         ...",
        "   |            ....",
        " 5 +o..o...o..o...o..o..o...o..o...o..o",
        "   |                      ....",
        "   |                          .......",
        " 0 +                                 ..",
        "   ++----------------+----------------+",
        "    0                50              100",
      ]
    `)
  })

  test('one point, equal values and no room', () => {
    expect(drawCurves([{ points: [{ step: 1, value: 3 }] }], { width: 30, height: 4, unicode: true })).toHaveLength(6)
    expect(drawCurves([{ points: [] }], { width: 30, height: 4, unicode: true })).toEqual([])
    expect(drawCurves([{ points: line }], { width: 9, height: 4, unicode: true })).toEqual([])
  })

  test('the first and the last value lie in the first and the last row', () => {
    const rows = drawCurves([{ points: line }], { width: 40, height: 6, unicode: false })
    expect(rows[0][4]).toBe('.')
    expect(rows[5].trimEnd()).toHaveLength(40 - 1)
  })
})

describe('SVG plots', () => {
  const numbers = (svg: string, name: string) =>
    [...svg.matchAll(new RegExp(`${name}="([-0-9.]+)"`, 'g'))].map((m) => Number(m[1]))

  test('a small plot, exactly', () => {
    const points = [
      { x: 0, y: 1 },
      { x: 1, y: 3 },
      { x: 2, y: 2 },
    ]
    expect(
      plotSvg([{ name: 'a <b>', points, kind: 'marked' }], { title: 'T & U', xLabel: 'x', yLabel: 'y' }),
    ).toMatchInlineSnapshot(`
      "<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 420" width="720" height="420" role="img">
      <title>T &amp; U</title>
      <style>
        .back { fill: #ffffff } .grid { stroke: #e2e2e2 } .axis { stroke: #555555 } text { fill: #222222; font: 12px system-ui, sans-serif }
        .title { font-size: 14px; font-weight: 600 }
        @media (prefers-color-scheme: dark) {
          .back { fill: #101418 } .grid { stroke: #2b3138 } .axis { stroke: #9aa4ae } text { fill: #dde3e9 }
        }
      </style>
      <rect class="back" width="720" height="420"/>
      <text class="title" x="64" y="22">T &amp; U</text>
      <line class="grid" x1="70.27" x2="70.27" y1="54" y2="374"/>
      <text x="70.27" y="390" text-anchor="middle">0</text>
      <line class="grid" x1="227.14" x2="227.14" y1="54" y2="374"/>
      <text x="227.14" y="390" text-anchor="middle">0.5</text>
      <line class="grid" x1="384" x2="384" y1="54" y2="374"/>
      <text x="384" y="390" text-anchor="middle">1.0</text>
      <line class="grid" x1="540.86" x2="540.86" y1="54" y2="374"/>
      <text x="540.86" y="390" text-anchor="middle">1.5</text>
      <line class="grid" x1="697.73" x2="697.73" y1="54" y2="374"/>
      <text x="697.73" y="390" text-anchor="middle">2.0</text>
      <line class="grid" x1="64" x2="704" y1="362.15" y2="362.15"/>
      <text x="56" y="366.15" text-anchor="end">1.0</text>
      <line class="grid" x1="64" x2="704" y1="288.07" y2="288.07"/>
      <text x="56" y="292.07" text-anchor="end">1.5</text>
      <line class="grid" x1="64" x2="704" y1="214" y2="214"/>
      <text x="56" y="218" text-anchor="end">2.0</text>
      <line class="grid" x1="64" x2="704" y1="139.93" y2="139.93"/>
      <text x="56" y="143.93" text-anchor="end">2.5</text>
      <line class="grid" x1="64" x2="704" y1="65.85" y2="65.85"/>
      <text x="56" y="69.85" text-anchor="end">3.0</text>
      <path class="axis" fill="none" d="M64 54V374H704"/>
      <text x="384" y="412" text-anchor="middle">x</text>
      <text x="16" y="214" text-anchor="middle" transform="rotate(-90 16 214)">y</text>
      <path fill="none" stroke="#1a80c4" stroke-width="2" stroke-linejoin="round" d="M70.27 362.15L384 65.85L697.73 214"/>
      <circle cx="70.27" cy="362.15" r="3.5" fill="#1a80c4"/>
      <circle cx="384" cy="65.85" r="3.5" fill="#1a80c4"/>
      <circle cx="697.73" cy="214" r="3.5" fill="#1a80c4"/>
      <line x1="64" x2="86" y1="42" y2="42" stroke="#1a80c4" stroke-width="2"/>
      <circle cx="75" cy="42" r="3.5" fill="#1a80c4"/>
      <text x="92" y="46">a &lt;b&gt;</text>
      </svg>
      "
    `)
  })

  test('makes a long title smaller', () => {
    const sizeOf = (title: string) => /class="title"[^>]*font-size: ([\d.]+)px/.exec(plotSvg([], { title }))?.[1]
    expect(sizeOf('x'.repeat(60))).toBeUndefined()
    expect(sizeOf('x'.repeat(90))).toBe('10.1')
    expect(sizeOf('x'.repeat(400))).toBe('8')
  })

  test('names that have no room begin another row, and long labels push the frame', () => {
    const points = [1, 2, 3].map((x) => ({ x, y: 10 ** -x }))
    const five = [
      'one of five',
      'another of five',
      'a third of them',
      'yet another one of five',
      'the last one of all five',
    ]
    const rows = (svg: string) =>
      new Set([...svg.matchAll(/<line x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)"/g)].map((m) => m[1])).size
    const svg = plotSvg(
      five.map((name) => ({ name, points })),
      { yLabel: 'y', logY: true },
    )
    expect([rows(svg), rows(plotSvg([{ name: five[0], points }]))]).toEqual([2, 1])
    five.forEach((name) => {
      const at = Number(svg.match(new RegExp(`x="([\\d.]+)" y="[\\d.]+">${name}<`))?.[1])
      expect(at + 7 * name.length).toBeLessThan(720)
    })
    const frame = (y: number) =>
      Number(
        plotSvg([
          {
            name: '',
            points: [
              { x: 0, y },
              { x: 1, y: 2 * y },
            ],
          },
        ]).match(/d="M(\d+)/)?.[1],
      )
    expect(frame(1)).toBe(64)
    expect(frame(1.23456e-5)).toBeGreaterThan(64)
  })

  test('marks lie where the axes say', () => {
    const points = [
      { x: 10, y: 100 },
      { x: 1000, y: 1 },
    ]
    const svg = plotSvg([{ name: 'log', points, kind: 'points' }], { logX: true, logY: true })
    const [cx, cy] = [numbers(svg, 'cx'), numbers(svg, 'cy')]
    const tick = (label: string) =>
      Number(new RegExp(`<text x="([0-9.]+)" y="[0-9.]+" text-anchor="middle">${label}</text>`).exec(svg)?.[1])
    expect(cx[0]).toBeCloseTo(tick('10'), 1)
    expect(cx[1]).toBeCloseTo(tick('1k'), 1)
    expect(cy[0]).toBeLessThan(cy[1])
  })

  test('values that cannot be drawn are left out, and a plot of nothing is a plot', () => {
    const points = [
      { x: 1, y: Number.NaN },
      { x: 2, y: Number.POSITIVE_INFINITY },
      { x: -1, y: 1 },
    ]
    const svg = plotSvg([{ name: 'none', points, kind: 'points' }], { logX: true })
    expect(svg).not.toMatch(/NaN|Infinity/)
    // The one mark is that of the legend.
    expect(numbers(svg, 'cx')).toHaveLength(1)
    expect(plotSvg([])).toContain('</svg>')
  })

  test('the loss of a run: raw, mean and validation', () => {
    const progress = newProgress()
    for (const event of fakeRun()) follow(progress, event)
    const svg = lossSvg(progress, { title: 'book.txt' })
    expect(svg.match(/<path fill="none" stroke/g)).toHaveLength(3)
    expect(svg.match(/<circle/g)).toHaveLength(5)
    expect(svg).toContain('prefers-color-scheme: dark')
  })
})
