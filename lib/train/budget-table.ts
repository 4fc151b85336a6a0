import type { MemoryRow } from './events.js'
import { bytes } from './plot-numbers.js'

const percent = (share: number): string => `${(100 * share).toFixed(0)}%`

/** The ways to run as lines of a table: method, memory, relative speed, whether it fits. Without a budget nothing is said of that. */
export function budgetLines(rows: readonly MemoryRow[], budget?: number): string[] {
  const verdict = (row: MemoryRow): string => {
    if (budget === undefined) return row.exact ? 'exact' : 'changes the numbers'
    if (row.total > budget) return 'does not fit'
    return row.allowed ? 'fits' : 'would fit, not allowed'
  }
  const cells = rows.map((row) => [row.method, bytes(row.total), percent(row.speed), verdict(row)])
  const head = ['method', 'memory', 'speed', budget === undefined ? 'numbers' : `in ${bytes(budget)}`]
  const widths = head.map((name, c) => Math.max(name.length, ...cells.map((row) => row[c].length)))
  return [head, ...cells].map((row) =>
    row
      .map((text, c) => (c === 1 || c === 2 ? text.padStart(widths[c]) : text.padEnd(widths[c])))
      .join('  ')
      .trimEnd(),
  )
}

const BAR = 40

/** The curve of time against memory as lines: what the run takes, what that costs, and a bar for the time. */
export function curveLines(points: readonly { total: number; slowdown: number }[], unicode: boolean): string[] {
  const most = Math.max(...points.map((p) => p.slowdown))
  const mark = unicode ? '█' : '#'
  const head = 'memory       time'
  return [
    head,
    ...points.map(({ total, slowdown }) => {
      const bar = mark.repeat(Math.round((BAR * (slowdown - 1)) / Math.max(most - 1, 1e-9)))
      return `${bytes(total).padStart(8)}  ${`+${((slowdown - 1) * 100).toFixed(1)}%`.padStart(7)}  ${bar}`.trimEnd()
    }),
  ]
}
