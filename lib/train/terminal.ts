import { drawCurves } from './curve.js'
import { eventLine, type TrainEvent } from './events.js'
import { follow, newProgress, type Progress } from './progress.js'
import { barLine, eventNote, figureLines, planLines, type Screen, stepLine } from './terminal-lines.js'
import { type Abilities, abilities, columns, cut, harmless, styled, wrapped } from './terminal-text.js'

/** The part of a writable stream that a view needs; `process.stderr` and `process.stdout` are such streams. */
export interface Output {
  write(text: string): unknown
  isTTY?: boolean
  columns?: number
  rows?: number
  on?(event: 'resize', listener: () => void): unknown
  off?(event: 'resize', listener: () => void): unknown
}

/** Shows the events of a run to somebody. */
export interface View {
  /** Takes the next event. */
  show(event: TrainEvent): void
  /** Leaves the terminal as it was found, with the last state of the run above the cursor. Calling it again does nothing. */
  close(): void
}

const CURVE_LINES = 10
const SAMPLE_LINES = 4
const LEAST_FOR_CURVE = 4

/** The live block as lines that are no wider than the screen and together no higher. */
export function liveLines(progress: Progress, screen: Screen): string[] {
  const { width, height, unicode, color } = screen
  const head = [barLine(progress, screen), ...figureLines(progress, screen)]
  let room = height - head.length
  const sample = progress.sample ? sampleLines(progress.sample, screen) : []
  const curveHeight = Math.min(CURVE_LINES, room - 2 - Math.min(sample.length, Math.max(0, room - 2 - LEAST_FOR_CURVE)))
  const curve =
    curveHeight < LEAST_FOR_CURVE || width < 30
      ? []
      : drawCurves(
          [
            { points: progress.train.points, paint: (t) => styled(t, 'cyan', color) },
            { points: progress.validation.points, paint: (t) => styled(t, 'yellow', color), mark: unicode ? '◆' : 'o' },
          ],
          { width, height: curveHeight, unicode },
        )
  room -= curve.length
  return [...head, ...curve, ...(room < 2 ? [] : sample.slice(0, room))]
    .slice(0, height)
    .map((line) => cut(line, width))
}

function sampleLines(sample: { step: number; prompt: string; text: string }, screen: Screen): string[] {
  const { width, unicode, color } = screen
  const text = harmless(sample.prompt + sample.text, unicode).trim()
  return [
    styled(`${unicode ? '── ' : '-- '}sample at step ${sample.step} ${(unicode ? '─' : '-').repeat(4)}`, 'dim', color),
    ...wrapped(text, width, SAMPLE_LINES),
  ]
}

/** A view that keeps one block at the bottom of a terminal and redraws it in place. */
class LiveView implements View {
  private readonly progress = newProgress()
  private drawn: string[] = []
  private timer: NodeJS.Timeout | undefined
  private lastDraw = 0
  private open = true
  private ended = false
  private readonly redraw = () => this.draw()
  private readonly restore = () => this.close()

  constructor(
    private readonly out: Output,
    private readonly can: Abilities,
    private readonly interval: number,
  ) {
    // The cursor is hidden while the block stands, and comes back however the process ends.
    out.write('\x1b[?25l')
    out.on?.('resize', this.redraw)
    process.once('exit', this.restore)
  }

  show(event: TrainEvent): void {
    if (!this.open) return
    follow(this.progress, event)
    if (event.type === 'stop' || event.type === 'error') {
      // The last block stays, and what is said about the end stands below it.
      this.draw()
      this.drawn = []
      this.ended = true
      this.note(eventNote(event, this.can))
      return
    }
    if (event.type === 'start') this.note(planLines(event, this.can, (this.out.columns ?? 80) - 1))
    else if (event.type !== 'eval' && event.type !== 'sample') this.note(eventNote(event, this.can))
    const wait = this.lastDraw + this.interval - Date.now()
    if (wait <= 0) this.draw()
    else this.timer ??= setTimeout(this.redraw, wait).unref()
  }

  close(): void {
    if (!this.open) return
    this.draw()
    this.open = false
    this.out.write('\x1b[?25h')
    this.out.off?.('resize', this.redraw)
    process.off('exit', this.restore)
  }

  /** Writes lines that stay above the block. */
  private note(lines: readonly string[]): void {
    if (lines.length === 0) return
    this.out.write(`${this.top()}${lines.map((l) => `${l}\x1b[K\n`).join('')}\x1b[J`)
    this.drawn = []
    this.lastDraw = 0
  }

  private draw(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    if (!this.open || this.ended) return
    this.lastDraw = Date.now()
    // A line that fills the last column wraps on some terminals, and the block must be lower than the screen to be redrawn.
    const screen = { ...this.can, width: (this.out.columns ?? 80) - 1, height: (this.out.rows ?? 24) - 1 }
    const lines = liveLines(this.progress, screen)
    // One write between the marks of a synchronized update: terminals that know them show no half-drawn block.
    const body = lines.map((line) => `${line}\x1b[K\n`).join('')
    this.out.write(`\x1b[?2026h${this.top()}${body}\x1b[J\x1b[?2026l`)
    this.drawn = lines
  }

  /** The way back to the first line of the block; after a resize a line may have been broken into several. */
  private top(): string {
    const width = Math.max(1, this.out.columns ?? 80)
    const rows = this.drawn.reduce((sum, line) => sum + Math.max(1, Math.ceil(columns(line) / width)), 0)
    return rows > 0 ? `\x1b[${Math.min(rows, (this.out.rows ?? 24) - 1)}A\r` : '\r'
  }
}

/** A view of plain lines: one for the first step, then per log interval, evaluation, sample, checkpoint and warning. */
class PlainView implements View {
  private readonly progress = newProgress()
  private logged = -1

  constructor(
    private readonly out: Output,
    private readonly can: Abilities,
    private readonly logEvery: number,
  ) {}

  show(event: TrainEvent): void {
    follow(this.progress, event)
    if (event.type === 'start') {
      this.say(planLines(event, this.can))
    } else if (event.type === 'step') {
      const interval = Math.floor(event.step / this.logEvery)
      if (interval <= this.logged && event.step !== this.progress.start?.steps) return
      this.logged = interval
      this.say([stepLine(this.progress, event)])
    } else {
      this.say(eventNote(event, this.can))
    }
  }

  close(): void {}

  private say(lines: readonly string[]): void {
    if (lines.length > 0) this.out.write(lines.map((l) => `${l}\n`).join(''))
  }
}

/** A view of one JSON object per event. */
class JsonView implements View {
  constructor(private readonly out: Output) {}

  show(event: TrainEvent): void {
    this.out.write(`${eventLine(event)}\n`)
  }

  close(): void {}
}

/** How `openView` shows a run. */
export interface ViewOptions {
  /** One JSON object per event. */
  json?: boolean
  /** Steps between two lines where there is no terminal; default 10. */
  logEvery?: number
  /** Milliseconds between two drawings of the live block; default 100. */
  interval?: number
  /** The environment that tells what the terminal can show; default that of the process. */
  env?: Readonly<Record<string, string | undefined>>
}

/** The view that suits the stream: a live block on a terminal, plain lines elsewhere, JSON where asked for. */
export function openView(
  out: Output,
  { json = false, logEvery = 10, interval = 100, env = process.env }: ViewOptions = {},
): View {
  if (json) return new JsonView(out)
  const can = abilities(out, env)
  return out.isTTY && env.TERM !== 'dumb' ? new LiveView(out, can, interval) : new PlainView(out, can, logEvery)
}
