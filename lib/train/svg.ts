import { tickLabel, ticks } from './plot-numbers.js'

/** A series of a plot. */
export interface Series {
  name: string
  /** Points in any order for `points`, from left to right for `line`; those with a coordinate that is not finite are left out. */
  points: readonly { x: number; y: number }[]
  /** A line, a line with a mark at each point, or marks alone; default `line`. */
  kind?: 'line' | 'marked' | 'points'
  /** Drawn thin and pale, as raw values behind their mean; it has no entry in the legend. */
  faint?: boolean
  /** Position in the palette; default the number of the series. */
  color?: number
}

/** How `plotSvg` draws. */
export interface PlotOptions {
  title?: string
  xLabel?: string
  yLabel?: string
  /** Pixels; default 720 × 420. */
  width?: number
  height?: number
  /** Logarithmic axes; values that are not above 0 are left out. */
  logX?: boolean
  logY?: boolean
}

/** Okabe and Ito's colours, told apart with every kind of colour vision; those that read on white and on black. */
const PALETTE = ['#1a80c4', '#d55e00', '#009e73', '#cc79a7', '#b58900', '#56b4e9']
const STYLE = `
  .back { fill: #ffffff } .grid { stroke: #e2e2e2 } .axis { stroke: #555555 } text { fill: #222222; font: 12px system-ui, sans-serif }
  .title { font-size: 14px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .back { fill: #101418 } .grid { stroke: #2b3138 } .axis { stroke: #9aa4ae } text { fill: #dde3e9 }
  }`

const escapeXml = (text: string): string =>
  text.replace(/[<>&"]/g, (c) => ({ '<': '&lt;', '>': '&gt;', '&': '&amp;', '"': '&quot;' })[c] as string)
const round = (value: number): string => String(Math.round(value * 100) / 100)

interface Axis {
  low: number
  high: number
  to(value: number): number
  ticks: { at: number; label: string }[]
}

/** The scale of an axis: a little more than what the values span, so that no mark lies on the frame. */
function axis(
  values: readonly number[],
  from: number,
  length: number,
  log: boolean,
  margin: number,
  count: number,
): Axis {
  const scale = log ? Math.log10 : (v: number) => v
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (const value of values) {
    low = Math.min(low, scale(value))
    high = Math.max(high, scale(value))
  }
  if (low > high) [low, high] = [0, 1]
  if (high - low < 1e-9 * Math.max(1, Math.abs(high))) [low, high] = [low - 0.5, high + 0.5]
  const spare = margin * (high - low)
  ;[low, high] = [low - spare, high + spare]
  const to = (value: number) => from + ((scale(value) - low) / (high - low)) * length
  if (!log) {
    const { values: at, step } = ticks(low, high, count)
    return { low, high, to, ticks: at.map((v) => ({ at: v, label: tickLabel(v, step) })) }
  }
  // Whole decades; within less than two of them also 2 and 5.
  const leads = high - low < 2 ? [1, 2, 5] : [1]
  const found: { at: number; label: string }[] = []
  const skip = Math.max(1, Math.ceil((high - low) / 8))
  for (let e = Math.floor(low); e <= Math.ceil(high); e++) {
    if (leads.length === 1 && e % skip !== 0) continue
    for (const lead of leads) {
      const at = lead * 10 ** e
      if (Math.log10(at) >= low && Math.log10(at) <= high) found.push({ at, label: tickLabel(at, at) })
    }
  }
  return { low, high, to, ticks: found }
}

/** A plot as the text of an SVG file: axes with round numbers, a legend, readable on light and on dark ground. */
export function plotSvg(series: readonly Series[], options: PlotOptions = {}): string {
  const { title = '', xLabel = '', yLabel = '', width = 720, height = 420, logX = false, logY = false } = options
  const usable = series.map((s) => ({
    ...s,
    points: s.points.filter(
      ({ x, y }) => Number.isFinite(x) && Number.isFinite(y) && (!logX || x > 0) && (!logY || y > 0),
    ),
  }))
  const legend = usable.map((s, i) => ({ ...s, index: i })).filter((s) => !s.faint && s.name)
  const all = usable.flatMap((s) => s.points)
  const right = 16
  // Names that have no room in a row of the legend begin the next one.
  const rowsOf = (from: number) => {
    let [at, row] = [from, 0]
    return legend.map((s) => {
      const wide = 44 + 7 * s.name.length
      if (at > from && at + wide > width - right) [at, row] = [from, row + 1]
      at += wide
      return { ...s, at: at - wide, row }
    })
  }
  const least = 64
  const legendRows = 1 + Math.max(-1, ...rowsOf(least).map((s) => s.row))
  const [top, bottom] = [(title ? 34 : 12) + 20 * legendRows, xLabel ? 46 : 30]
  const innerHeight = height - top - bottom
  const y = axis(
    all.map((p) => p.y),
    top + innerHeight,
    -innerHeight,
    logY,
    0.04,
    Math.floor(innerHeight / 45),
  )
  // Labels of ticks have their room between the name of the axis and the frame.
  const left = Math.max(least, 36 + 7 * Math.max(0, ...y.ticks.map((t) => t.label.length)))
  const innerWidth = width - left - right
  const x = axis(
    all.map((p) => p.x),
    left,
    innerWidth,
    logX,
    0.01,
    Math.floor(innerWidth / 90),
  )
  const colorOf = (s: Series, index: number) => PALETTE[(s.color ?? index) % PALETTE.length]

  const parts: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    ...(title ? [`<title>${escapeXml(title)}</title>`] : []),
    `<style>${STYLE}\n</style>`,
    `<rect class="back" width="${width}" height="${height}"/>`,
  ]
  if (title) {
    // A long one is smaller, so that it does not run off; wide fonts have 0.7 em a letter.
    const size = Math.max(8, Math.floor((10 * innerWidth) / (0.7 * title.length)) / 10)
    const style = size < 14 ? ` style="font-size: ${size}px"` : ''
    parts.push(`<text class="title" x="${left}" y="22"${style}>${escapeXml(title)}</text>`)
  }
  for (const { at, label } of x.ticks) {
    const px = round(x.to(at))
    parts.push(`<line class="grid" x1="${px}" x2="${px}" y1="${top}" y2="${top + innerHeight}"/>`)
    parts.push(`<text x="${px}" y="${top + innerHeight + 16}" text-anchor="middle">${label}</text>`)
  }
  for (const { at, label } of y.ticks) {
    const py = round(y.to(at))
    parts.push(`<line class="grid" x1="${left}" x2="${left + innerWidth}" y1="${py}" y2="${py}"/>`)
    parts.push(`<text x="${left - 8}" y="${round(y.to(at) + 4)}" text-anchor="end">${label}</text>`)
  }
  parts.push(`<path class="axis" fill="none" d="M${left} ${top}V${top + innerHeight}H${left + innerWidth}"/>`)
  if (xLabel) {
    parts.push(`<text x="${left + innerWidth / 2}" y="${height - 8}" text-anchor="middle">${escapeXml(xLabel)}</text>`)
  }
  if (yLabel) {
    const middle = top + innerHeight / 2
    parts.push(
      `<text x="16" y="${middle}" text-anchor="middle" transform="rotate(-90 16 ${middle})">${escapeXml(yLabel)}</text>`,
    )
  }
  usable.forEach((s, index) => {
    const stroke = colorOf(s, index)
    const at = s.points.map((p) => `${round(x.to(p.x))} ${round(y.to(p.y))}`)
    if (s.kind !== 'points' && at.length > 0) {
      const thin = s.faint ? 'stroke-width="1" stroke-opacity="0.35"' : 'stroke-width="2"'
      parts.push(`<path fill="none" stroke="${stroke}" ${thin} stroke-linejoin="round" d="M${at.join('L')}"/>`)
    }
    // A line through one point shows nothing: it gets its mark too.
    if (s.kind === 'points' || s.kind === 'marked' || at.length === 1) {
      for (const point of at) {
        const [cx, cy] = point.split(' ')
        parts.push(`<circle cx="${cx}" cy="${cy}" r="3.5" fill="${stroke}"/>`)
      }
    }
  })
  for (const { at, row, ...s } of rowsOf(least)) {
    const [stroke, middle] = [colorOf(s, s.index), top - 12 - 20 * (legendRows - 1 - row)]
    if (s.kind !== 'points') {
      parts.push(`<line x1="${at}" x2="${at + 22}" y1="${middle}" y2="${middle}" stroke="${stroke}" stroke-width="2"/>`)
    }
    if (s.kind === 'points' || s.kind === 'marked') {
      parts.push(`<circle cx="${at + 11}" cy="${middle}" r="3.5" fill="${stroke}"/>`)
    }
    parts.push(`<text x="${at + 28}" y="${middle + 4}">${escapeXml(s.name)}</text>`)
  }
  parts.push('</svg>')
  return `${parts.join('\n')}\n`
}
