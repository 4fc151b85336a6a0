import { tickLabel, ticks } from './plot-numbers.js'
import type { Point } from './progress.js'

/** A curve to be drawn with characters. */
export interface Curve {
  points: readonly Point[]
  /** Wraps the characters of this curve in a colour; characters of a later curve lie above those of an earlier one. */
  paint?: (text: string) => string
  /** Drawn as a mark at every point over its line, so that it can be told from another curve without colours. */
  mark?: string
}

/** How a plot of characters is drawn. */
export interface CurveOptions {
  /** Characters in all, labels of the axis included. */
  width: number
  /** Lines of the plot itself; the numbers of the x axis take one or two lines more. */
  height: number
  /** Where the x axis begins; default 0. */
  first?: number
  /** Braille dots and box characters; otherwise ASCII alone. */
  unicode: boolean
}

/** The dots of one character: two columns of four, as the Unicode block of braille patterns numbers them. */
const DOTS = [
  [0x01, 0x08],
  [0x02, 0x10],
  [0x04, 0x20],
  [0x40, 0x80],
]

/** A raster of dots with a character cell over every 2 × 4 of them (1 × 1 in ASCII). */
class Raster {
  readonly columns: number
  readonly rows: number
  private readonly bits: Uint8Array

  constructor(
    readonly width: number,
    readonly height: number,
    readonly unicode: boolean,
  ) {
    this.columns = unicode ? width * 2 : width
    this.rows = unicode ? height * 4 : height
    this.bits = new Uint8Array(width * height)
  }

  set(x: number, y: number): void {
    if (x < 0 || y < 0 || x >= this.columns || y >= this.rows) return
    if (this.unicode) this.bits[(y >> 2) * this.width + (x >> 1)] |= DOTS[y & 3][x & 1]
    else this.bits[y * this.width + x] = 1
  }

  /** Sets the dots of a straight line, both ends included. */
  line(x0: number, y0: number, x1: number, y1: number): void {
    const count = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1)
    for (let i = 0; i <= count; i++) {
      this.set(Math.round(x0 + ((x1 - x0) * i) / count), Math.round(y0 + ((y1 - y0) * i) / count))
    }
  }

  character(column: number, row: number): string {
    const bits = this.bits[row * this.width + column]
    if (bits === 0) return ''
    return this.unicode ? String.fromCharCode(0x2800 + bits) : '.'
  }
}

/** The mean of the points that fall into each dot column, as dots from left to right. */
function columnMeans(points: readonly Point[], toX: (step: number) => number): { x: number; value: number }[] {
  const means: { x: number; value: number }[] = []
  let count = 0
  for (const { step, value } of points) {
    const x = Math.round(toX(step))
    const last = means[means.length - 1]
    if (last && last.x === x) {
      last.value += (value - last.value) / ++count
    } else {
      means.push({ x, value })
      count = 1
    }
  }
  return means
}

/** Lines of text that show the curves with numbers on both axes; none where there is no point or no room. */
export function drawCurves(curves: readonly Curve[], { width, height, unicode, first = 0 }: CurveOptions): string[] {
  const all = curves.flatMap((c) => c.points)
  if (all.length === 0 || height < 2) return []
  let [low, high] = [Math.min(...all.map((p) => p.value)), Math.max(...all.map((p) => p.value))]
  const least = Math.max(Math.abs(high), 1e-6) * 1e-3
  if (high - low < least) [low, high] = [low - least, high + least]
  const last = Math.max(...all.map((p) => p.step), first + 1)

  const yTicks = ticks(low, high, Math.max(1, Math.floor(height / 2)))
  const yLabels = yTicks.values.map((v) => tickLabel(v, yTicks.step))
  const margin = Math.max(...yLabels.map((l) => l.length), 1)
  const inner = width - margin - 3
  if (inner < 8) return []

  const rasters = curves.map(() => new Raster(inner, height, unicode))
  const { columns, rows } = rasters[0]
  const toX = (step: number) => ((step - first) / (last - first)) * (columns - 1)
  const toY = (value: number) => ((high - value) / (high - low)) * (rows - 1)
  const marks = new Map<number, number>()
  curves.forEach((curve, c) => {
    const dots = columnMeans(curve.points, toX).map(({ x, value }) => ({ x, y: Math.round(toY(value)) }))
    dots.forEach((dot, i) => {
      const from = dots[Math.max(0, i - 1)]
      rasters[c].line(from.x, from.y, dot.x, dot.y)
      const cell = unicode ? (dot.y >> 2) * inner + (dot.x >> 1) : dot.y * inner + dot.x
      if (curve.mark) marks.set(cell, c)
    })
  })

  const cell = (column: number, row: number): string => {
    const marked = marks.get(row * inner + column)
    if (marked !== undefined) return (curves[marked].paint ?? String)(curves[marked].mark as string)
    for (let c = curves.length - 1; c >= 0; c--) {
      const character = rasters[c].character(column, row)
      if (character) return (curves[c].paint ?? String)(character)
    }
    return ' '
  }
  const perRow = rows / height
  const labelOf = new Map(
    yTicks.values.map((v, i) => [Math.min(height - 1, Math.floor(Math.round(toY(v)) / perRow)), yLabels[i]]),
  )
  const lines = Array.from({ length: height }, (_, row) => {
    const label = labelOf.get(row)
    const axis = label === undefined ? (unicode ? '│' : '|') : unicode ? '┤' : '+'
    const cells = Array.from({ length: inner }, (_, column) => cell(column, row)).join('')
    return `${(label ?? '').padStart(margin)} ${axis}${cells}`.trimEnd()
  })
  return [...lines, ...xAxis(first, last, inner, unicode).map((line) => ' '.repeat(margin + 1) + line)]
}

/** The line of the x axis and its numbers. */
function xAxis(first: number, last: number, inner: number, unicode: boolean): string[] {
  const { values, step } = ticks(first, last, Math.max(1, Math.floor(inner / 14)))
  const rule = [unicode ? '└' : '+', ...(unicode ? '─' : '-').repeat(inner)]
  const numbers = Array<string>(inner + 2).fill(' ')
  for (const value of values) {
    const at = 1 + Math.round(((value - first) / (last - first)) * (inner - 1))
    const label = tickLabel(value, step)
    const from = Math.max(0, Math.min(at - Math.floor((label.length - 1) / 2), numbers.length - label.length))
    if (numbers.slice(Math.max(0, from - 1), from + label.length + 1).some((c) => c !== ' ')) continue
    rule[at] = unicode ? '┬' : '+'
    for (let i = 0; i < label.length; i++) numbers[from + i] = label[i]
  }
  return [rule.join(''), numbers.join('').trimEnd()]
}
