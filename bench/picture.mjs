// The picture of a bench of training: for each work, how many times longer than steepest every peer takes.

const escape = (text) => text.replace(/[<>&"]/g, (c) => ({ '<': '&lt;', '>': '&gt;', '&': '&amp;', '"': '&quot;' })[c])
const COLORS = { 'PyTorch eager': '#d55e00', 'PyTorch compiled': '#cc79a7', JAX: '#1a80c4' }
const STYLE = `
  .back { fill: #ffffff } .one { stroke: #555555 } .whisker { stroke: #222222 } text { fill: #222222; font: 12px system-ui, sans-serif }
  .title { font-size: 14px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .back { fill: #101418 } .one { stroke: #9aa4ae } .whisker { stroke: #dde3e9 } text { fill: #dde3e9 }
  }`

/** Bars of ratios on a logarithmic axis, with their spread; the line at 1 is steepest's time. */
export function barsSvg({ works, machine }) {
  const rows = works.flatMap(({ name, title, dtype, programs }) => [
    { heading: `${name}: ${title}, ${dtype}` },
    ...programs.filter((c) => c.ratio),
  ])
  const ratios = rows.flatMap((r) => (r.ratio ? [r.ratio.low, r.ratio.high] : []))
  const low = Math.min(0.8, ...ratios)
  const high = Math.max(2, ...ratios)
  const [left, right, top, line] = [150, 70, 52, 20]
  const width = 760
  const height = top + rows.length * line + 34
  const to = (v) => left + (Math.log(v / low) / Math.log(high / low)) * (width - left - right)
  const round = (v) => Math.round(v * 10) / 10
  const parts = rows.map((row, i) => {
    const y = top + i * line
    if (row.heading) return `<text x="12" y="${y + 15}" font-weight="600">${escape(row.heading)}</text>`
    const { median, low: least, high: most } = row.ratio
    const [from, until] = [Math.min(to(1), to(median)), Math.max(to(1), to(median))]
    return [
      `<line class="one" x1="${round(to(1))}" x2="${round(to(1))}" y1="${y}" y2="${y + line}"/>`,
      `<text x="${left - 8}" y="${y + 14}" text-anchor="end">${escape(row.name)}</text>`,
      `<rect x="${round(from)}" y="${y + 4}" width="${round(until - from)}" height="12" fill="${COLORS[row.name] ?? '#009e73'}"/>`,
      `<line class="whisker" x1="${round(to(least))}" x2="${round(to(most))}" y1="${y + 10}" y2="${y + 10}"/>`,
      `<text x="${round(Math.max(until, to(most))) + 6}" y="${y + 14}">${median >= 100 ? Math.round(median) : median.toFixed(2)}</text>`,
    ].join('')
  })
  const bottom = top + rows.length * line + 4
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"><style>${STYLE}</style>
<rect class="back" width="${width}" height="${height}"/>
<text class="title" x="12" y="22">Time of a training step over that of steepest</text>
<text x="12" y="40">${escape(machine)}; median of the rounds, with the least and the most</text>
${parts.join('\n')}
<text x="${round(to(1))}" y="${bottom + 16}" text-anchor="middle">1</text>
</svg>
`
}
