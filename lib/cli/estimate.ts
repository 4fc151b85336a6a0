import { budgetLines, curveLines } from '../train/budget-table.js'
import { bytesFrom } from '../train/bytes.js'
import { eventLine } from '../train/events.js'
import { trainOptions } from '../train/options.js'
import { bytes, duration, quantity, short } from '../train/plot-numbers.js'
import type { OptionSpec } from '../train/spec.js'
import { planLines } from '../train/terminal-lines.js'
import { abilities } from '../train/terminal-text.js'
import { type Command, jsonFlag } from './support/command.js'
import { configFlag } from './support/config-file.js'
import { mergedOptions, type Prepare, prepared } from './train.js'

/** Here the budget may be left out: then all ways are shown. */
const memoryFlag = (spec: OptionSpec): OptionSpec =>
  spec.key === 'memory'
    ? { ...spec, bare: true, doc: 'what less memory would cost; with a size, what fits into it', chosen: undefined }
    : spec

/** `steepest estimate`. */
export function estimateCommand(load: () => Promise<Prepare>): Command {
  return {
    name: 'estimate',
    summary: 'what a training run would take: exact peak memory by what holds it, and the time',
    args: [{ name: '[file]', doc: 'as for train' }],
    flags: [...trainOptions.filter((o) => o.key !== 'file').map(memoryFlag), configFlag, jsonFlag],
    notes: '--memory prints what the run could do with, and what that costs; with a size also what fits into it.',
    async run({ args, flags: { memory: asked, ...flags } }, io) {
      const { out, env, cwd } = io
      const budget = typeof asked === 'string' ? bytesFrom('--memory', asked) : undefined
      const planned = await prepared(await load(), mergedOptions(args, flags, cwd), io)
      const { plan } = planned
      const report = asked === undefined ? undefined : planned.memory?.()
      if (flags.json) {
        out.write(`${eventLine({ type: 'start', ...plan })}\n`)
        if (report) out.write(`${JSON.stringify({ type: 'memory', budget, ...report })}\n`)
        return 0
      }
      const can = abilities(out, env)
      const { total, ...holders } = plan.memory
      const rows = [...Object.entries(holders).sort(([, a], [, b]) => b - a), ['total', total] as [string, number]]
      const share = (size: number) => `${((100 * size) / total).toFixed(1)}%`.padStart(7)
      const seconds = plan.secondsExpected
      const perStep = Number.isNaN(seconds)
        ? ''
        : `, ${short((1000 * seconds) / (plan.steps - plan.fromStep))} ms a step`
      const lines = [
        ...planLines(plan, can).filter((line) => !line.startsWith('memory')),
        '',
        'memory at the peak',
        ...rows.map(([name, size]) => `  ${name.padEnd(12)}${bytes(size).padStart(10)}${share(size)}`),
        '',
        `work        ${quantity(plan.flopsPerStep, 'FLOP')} a step`,
        `time        ${Number.isNaN(seconds) ? 'not known: this machine was not measured' : `about ${duration(seconds)}${perStep}`}`,
        ...(report ? ['', ...budgetLines(report.rows, budget), '', ...curveLines(report.curve, can.unicode)] : []),
      ]
      out.write(lines.map((line) => `${line}\n`).join(''))
      return 0
    },
  }
}
