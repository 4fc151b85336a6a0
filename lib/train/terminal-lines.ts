import type { EvalEvent, Plan, StepEvent, TrainEvent } from './events.js'
import { bytes, duration, grouped, quantity, short, small } from './plot-numbers.js'
import type { ProfileRow } from './profile.js'
import { type Progress, secondsLeft } from './progress.js'
import { type Abilities, columns, harmless, type Style, styled, wrapped } from './terminal-text.js'

/** What an evaluation tells beside the loss: the measures of the task, or the perplexity. */
const measures = ({ metrics, perplexity }: EvalEvent): string =>
  metrics
    ? Object.entries(metrics)
        .map(([name, value]) => `${name} ${value.toFixed(3)}`)
        .join('  ')
    : `perplexity ${short(perplexity)}`

/** What the lines of a view depend on beside the state of the run. */
export interface Screen extends Abilities {
  /** Columns that a line may take. */
  width: number
  /** Lines that the whole view may take. */
  height: number
}

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`
const loss = (value: number): string => (Number.isFinite(value) ? value.toFixed(value < 10 ? 3 : 2) : String(value))

/** Puts as many parts on a line as fit, the rest on further lines; a part is never broken. */
function flow(parts: readonly string[], width: number, gap: string): string[] {
  const lines: string[] = []
  for (const part of parts.filter(Boolean)) {
    const last = lines[lines.length - 1]
    if (last !== undefined && columns(last) + gap.length + columns(part) <= width) {
      lines[lines.length - 1] = last + gap + part
    } else {
      lines.push(part)
    }
  }
  return lines
}

/** The plan of a run in a few lines: what, on what, how, how much memory, what was chosen. */
export function planLines(plan: Plan, { unicode }: Abilities, width = Number.POSITIVE_INFINITY): string[] {
  const dot = unicode ? ' · ' : ', '
  const times = unicode ? ' × ' : ' x '
  const { memory } = plan
  const batch = plan.accumulate > 1 ? `${plan.batch}${times}${plan.accumulate}` : String(plan.batch)
  const from = plan.fromStep > 0 ? `, from step ${grouped(plan.fromStep)}` : ''
  const parts: [string, number][] = [
    ['weights', memory.weights],
    ['gradients', memory.gradients],
    ['optimizer', memory.optimizer],
    ['activations', memory.activations],
    ['workspace', memory.workspace],
    ['other', memory.other],
  ]
  const held = parts.filter(([, size]) => size > 0).map(([name, size]) => `${name} ${bytes(size)}`)
  const rows: [string, string][] = [
    ['model', [plan.model, `${short(plan.parameters)} parameters`, plan.dtype].join(dot)],
    ['data', [plan.data, plan.tokenizer].filter(Boolean).join(dot)],
    [
      'steps',
      `${grouped(plan.steps)}${from}, of ${grouped(plan.tokensPerStep)} ${plan.unit ?? 'tokens'} (batch ${batch}${plan.unit === 'images' || !plan.context ? '' : `, context ${plan.context}`})`,
    ],
    [
      'optimizer',
      [`${plan.optimizer}, lr ${small(plan.lr)}`, plan.schedule, `seed ${plan.seed}`].filter(Boolean).join(dot),
    ],
    ['memory', `${bytes(memory.total)} at the peak: ${held.join(', ')}`],
    ...(plan.fitted ? [['budget', plan.fitted] as [string, string]] : []),
    [
      'machine',
      [
        `${plan.processes ? `${plan.processes} processes of ` : ''}${plan.threads} threads`,
        plan.peakFlops > 0 ? `${quantity(plan.peakFlops, 'FLOP/s')} measured` : '',
      ]
        .filter(Boolean)
        .join(dot),
    ],
  ]
  if (plan.out) rows.push(['folder', plan.out])
  const chosen = Object.entries(plan.chosen).map(([name, why]) => `${name} ${why}`)
  if (chosen.length > 0) rows.push(['chosen', chosen.join('; ')])
  const indent = ' '.repeat(10)
  return rows.flatMap(([name, text]) =>
    wrapped(harmless(text, unicode), Math.max(20, width - indent.length), Number.POSITIVE_INFINITY).map(
      (line, i) => (i === 0 ? name.padEnd(indent.length) : indent) + line,
    ),
  )
}

/** Tokens a second, or rows, or images. */
const speedText = ({ start }: Progress, { tokensPerSecond }: StepEvent): [rate: string, unit: string] => [
  short(tokensPerSecond),
  `${start?.unit ?? 'tok'}/s`,
]

/** Everything about a step on one line, for output that is no terminal. */
export function stepLine(progress: Progress, step: StepEvent): string {
  const steps = progress.start?.steps
  return [
    `step ${step.step}${steps === undefined ? '' : `/${steps}`}`,
    `loss ${loss(step.loss)}`,
    `lr ${small(step.lr)}`,
    Number.isNaN(step.gradNorm) ? '' : `grad ${small(step.gradNorm)}`,
    speedText(progress, step).join(' '),
    `${small(step.msPerStep)} ms/step`,
    Number.isNaN(step.mfu) ? '' : `${percent(step.mfu)} of peak`,
    `memory ${bytes(step.memoryNow)} of ${bytes(step.memoryPlanned)}`,
    `eta ${duration(secondsLeft(progress))}`,
  ]
    .filter(Boolean)
    .join('  ')
}

/** The line of the bar: how far, how many steps, how long still. */
export function barLine(progress: Progress, { width, unicode, color }: Screen): string {
  const steps = progress.start?.steps ?? 0
  const done = progress.step?.step ?? progress.start?.fromStep ?? 0
  const share = steps > 0 ? Math.min(1, done / steps) : 0
  const count = `step ${grouped(done)}/${grouped(steps)}`
  const time = progress.stop ? `in ${duration(progress.stop.seconds)}` : `eta ${duration(secondsLeft(progress))}`
  const text = `${count}  ${Math.floor(share * 100)}%  ${time}`
  const room = Math.min(60, width - text.length - 2)
  if (room < 6) return text
  const filled = Math.round(room * share)
  const [on, off] = unicode ? ['━', '─'] : ['=', '-']
  return `${styled(on.repeat(filled), 'green', color)}${styled(off.repeat(room - filled), 'dim', color)}  ${text}`
}

/** The figures of the run, as many on a line as fit. */
export function figureLines(progress: Progress, { width, color }: Screen): string[] {
  const { step, eval: last, best } = progress
  const name = (label: string) => styled(label, 'dim', color)
  const training: string[] = []
  const speed: string[] = []
  if (step) training.push(`${name('train')} ${styled(loss(progress.smoothedLoss), 'cyan', color)}`)
  if (last) {
    const and = best && best.step !== last.step ? ` ${name(`(best ${loss(best.loss)} at ${grouped(best.step)})`)}` : ''
    training.push(`${name('val')} ${styled(loss(last.loss), 'yellow', color)}${and}`)
  }
  if (step) {
    training.push(`${name('lr')} ${small(step.lr)}`)
    if (!Number.isNaN(step.gradNorm)) training.push(`${name('grad')} ${small(step.gradNorm)}`)
    const [rate, unit] = speedText(progress, step)
    speed.push(`${rate} ${name(unit)}`, `${small(step.msPerStep)} ${name('ms/step')}`)
    if (!Number.isNaN(step.mfu)) speed.push(`${percent(step.mfu)} ${name('of peak')}`)
    speed.push(`${name('memory')} ${bytes(step.memoryNow)} ${name(`of ${bytes(step.memoryPlanned)}`)}`)
  }
  return [...flow(training, width, '  '), ...flow(speed, width, '  ')]
}

/** What is said about an event above the live block or as a line of its own; empty for events that have no line. */
export function eventNote(event: TrainEvent, { color, unicode }: Abilities): string[] {
  const tell = (style: Style, label: string, text: string) =>
    harmless(text, unicode)
      .split('\n')
      .map((line, i) => (i === 0 ? `${styled(label, style, color)} ${line}` : line))
  switch (event.type) {
    case 'eval':
      return [`eval ${event.step}  loss ${loss(event.loss)}  ${measures(event)}${event.best ? '  best' : ''}`]
    case 'sample':
      return [
        `sample ${event.step}:`,
        ...harmless(event.prompt + event.text, unicode)
          .split('\n')
          .map((l) => `  ${l}`.trimEnd()),
      ]
    case 'save':
      return tell('green', 'saved', `${event.path} (${bytes(event.bytes)})`)
    case 'profile':
      return profileLines(event)
    case 'warning':
      return tell('yellow', 'warning:', event.message)
    case 'error':
      return tell('red', 'error:', event.message)
    case 'stop':
      return stopLines(event, { color, unicode })
    default:
      return []
  }
}

/** Rows that are shown of a profile. */
const PROFILE_ROWS = 12

function profileLines({ steps, ms, ops, modules, path }: TrainEvent & { type: 'profile' }): string[] {
  const table = (title: string, rows: readonly ProfileRow[]) => {
    const width = Math.max(title.length, ...rows.slice(0, PROFILE_ROWS).map((r) => r.name.length))
    const line = (...[name, ...cells]: string[]) =>
      `  ${name.padEnd(width)}${cells.map((c) => c.padStart(11)).join('')}`
    const rest = rows.slice(PROFILE_ROWS).reduce((n, r) => n + r.ms, 0)
    return [
      line(title, 'ms', 'share', 'calls', 'GFLOP/s', 'GB/s'),
      ...rows
        .slice(0, PROFILE_ROWS)
        .map((r) =>
          line(
            r.name,
            r.ms.toFixed(2),
            percent(r.ms / ms),
            String(Math.round(r.calls)),
            ...[r.flops, r.bytes].map((n) => (r.ms > 0 ? small(n / r.ms / 1e6) : '')),
          ),
        ),
      ...(rest > 0 ? [line(`${rows.length - PROFILE_ROWS} more`, rest.toFixed(2), percent(rest / ms))] : []),
    ]
  }
  return [
    `profile of ${grouped(steps)} steps: ${small(ms)} ms of instructions in each`,
    ...table('op', ops),
    ...table('module', modules),
    ...(path ? [`trace of a mean step: ${path} (open it in chrome://tracing or ui.perfetto.dev)`] : []),
  ]
}

function stopLines(event: TrainEvent & { type: 'stop' }, { color, unicode }: Abilities): string[] {
  const said = {
    done: styled('done', 'green', color),
    stopAfter: 'stopped where asked',
    interrupted: styled('interrupted', 'yellow', color),
    earlyStopping: 'stopped early: the validation loss got no better',
    nonFinite: styled('stopped: a value is not finite', 'red', color),
  }[event.reason]
  const figures = [
    `after ${grouped(event.step)} steps in ${duration(event.seconds)}`,
    event.evalLoss === undefined ? '' : `validation loss ${loss(event.evalLoss)}`,
    event.bestLoss === undefined || event.bestLoss === event.evalLoss ? '' : `best ${loss(event.bestLoss)}`,
  ].filter(Boolean)
  return [
    `${said} ${figures.join(', ')}`,
    ...(event.message ? harmless(event.message, unicode).split('\n') : []),
    ...(event.path ? [`checkpoint ${event.path}`] : []),
    ...(event.resume ? [`go on with: ${styled(event.resume, 'bold', color)}`] : []),
  ]
}
