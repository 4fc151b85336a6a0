import { drawCurves, type CurveOptions } from '../train/curve.js'
import { plotSvg, type Series } from '../train/svg.js'
import { styled, type Style, wrapped } from '../train/terminal-text.js'
import type { CurvePoint, Plot } from './contract.js'
import type { Verdict } from './run.js'

const COLORS: readonly Style[] = ['blue', 'yellow', 'green', 'red', 'cyan']
/** Marks that tell curves apart without colours. */
const MARKS = 'ox+*#%'

/** The mean of the curves over the seeds, as far as the shortest goes. */
function meanCurve(curves: readonly (readonly CurvePoint[])[]): CurvePoint[] {
  const length = Math.min(...curves.map((c) => c.length))
  return Array.from({ length }, (_, i) => ({
    x: curves.reduce((s, c) => s + c[i].x, 0) / curves.length,
    y: curves.reduce((s, c) => s + c[i].y, 0) / curves.length,
  }))
}

const namesOf = (plot: Plot, { curves }: Pick<Verdict, 'curves'>): string[] =>
  (plot.curves ?? Object.keys(curves)).filter((name) => curves[name] !== undefined)

/** The plot of a study as the text of an SVG file: the mean over the seeds, and each seed faintly behind it. */
export function studySvg(title: string, plot: Plot, verdict: Pick<Verdict, 'curves'>): string {
  const series = namesOf(plot, verdict).flatMap((name, color): Series[] => {
    const runs = verdict.curves[name]
    const faint = runs.length < 2 ? [] : runs.map((points) => ({ name: '', points, color, faint: true }))
    const points = meanCurve(runs)
    return [...faint, { name, points, color, kind: points.length <= 16 ? 'marked' : 'line' }]
  })
  return plotSvg(series, { title, xLabel: plot.x, yLabel: plot.y, logX: plot.logX, logY: plot.logY })
}

/** The plot of a study as lines of text, with a legend; a logarithmic axis shows powers of ten. */
export function studyLines(
  plot: Plot,
  verdict: Pick<Verdict, 'curves'>,
  options: CurveOptions & { color: boolean },
): string[] {
  const { color, ...size } = options
  const scale = (value: number, log = false) => (log ? Math.log10(value) : value)
  const names = namesOf(plot, verdict)
  const paint = (i: number) => (text: string) => styled(text, COLORS[i % COLORS.length], color)
  const curves = names.map((name, i) => {
    const points = meanCurve(verdict.curves[name])
      .map(({ x, y }) => ({ step: scale(x, plot.logX), value: scale(y, plot.logY) }))
      .filter((p) => Number.isFinite(p.step) && Number.isFinite(p.value))
      .sort((a, b) => a.step - b.step)
    return { points, paint: paint(i), mark: color ? undefined : MARKS[i % MARKS.length] }
  })
  const first = plot.logX ? Math.min(...curves.flatMap((c) => c.points.map((p) => p.step))) : 0
  const lines = drawCurves(curves, { ...size, first })
  if (lines.length === 0) return []
  const axis = (label: string, log = false) => (log ? `log10 of ${label}` : label)
  // Names that have no room in a row of the legend begin the next one.
  const legend: string[] = []
  let room = 0
  for (const [i, name] of names.entries()) {
    const entry = `${color ? (size.unicode ? '━' : '-') : MARKS[i % MARKS.length]} ${name}`
    if (entry.length + 3 <= room) legend[legend.length - 1] += `   ${paint(i)(entry)}`
    else {
      legend.push(paint(i)(entry))
      room = size.width + 3
    }
    room -= entry.length + 3
  }
  const axes = `${axis(plot.y, plot.logY)} by ${axis(plot.x, plot.logX)}`
  return [...legend, ...lines, ...wrapped(axes, size.width, 4)]
}
