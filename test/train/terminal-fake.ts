import type { Plan, StartEvent, StepEvent, TrainEvent } from '../../lib/train/events.js'
import type { Output } from '../../lib/train/terminal.js'

/** A plan with every field, for views. */
export const plan: Plan = {
  model: 'GPT: 6 layers, 6 heads, width 192',
  parameters: 2_912_000,
  data: 'book.txt: 1.2 MB, 301k tokens, 10% for validation',
  tokenizer: 'byte pairs, 2048 entries',
  batch: 8,
  accumulate: 2,
  context: 128,
  tokensPerStep: 2048,
  steps: 400,
  fromStep: 0,
  optimizer: 'adamw',
  lr: 6e-4,
  schedule: 'warm-up 20, then cosine',
  dtype: 'float32',
  seed: 1,
  threads: 2,
  flopsPerStep: 3.5e10,
  peakFlops: 2.1e11,
  memory: {
    weights: 11.6e6,
    gradients: 3e6,
    optimizer: 23.2e6,
    activations: 120e6,
    workspace: 8e6,
    other: 20e6,
    total: 185.8e6,
  },
  secondsExpected: 160,
  out: 'runs/book',
  chosen: { layers: '6: 400 steps of it take three minutes here' },
}

export const start: StartEvent = { type: 'start', ...plan }

/** The loss falls as 3 + 5·exp(-step/80). */
export const lossAt = (step: number): number => 3 + 5 * Math.exp(-step / 80)

export function stepEvent(step: number, changes: Partial<StepEvent> = {}): StepEvent {
  return {
    type: 'step',
    step,
    loss: lossAt(step),
    lr: 5.8e-4,
    gradNorm: 0.92,
    tokens: step * 2048,
    tokensPerSecond: 12_400,
    msPerStep: 165,
    mfu: 0.634,
    memoryNow: 180e6,
    memoryPlanned: 185.8e6,
    seconds: step * 0.4,
    ...changes,
  }
}

export const evalEvent = (step: number): TrainEvent => ({
  type: 'eval',
  step,
  loss: lossAt(step) + 0.25,
  perplexity: Math.exp(lossAt(step) + 0.25),
  best: true,
  seconds: step * 0.4,
})

/** A run from its plan to its end. */
export function* fakeRun(steps = 400): Generator<TrainEvent> {
  yield { ...start, steps }
  for (let step = 10; step <= steps; step += 10) {
    yield stepEvent(step)
    if (step % 100 === 0) yield evalEvent(step)
    if (step === 200) yield { type: 'sample', step, prompt: 'The', text: ' ship was in the\nharbour.' }
    if (step === 200) yield { type: 'save', step, path: 'runs/book/checkpoint-200', bytes: 34.8e6 }
    if (step === 300) yield { type: 'warning', step, message: 'bfloat16 is slow on this CPU' }
  }
  yield {
    type: 'stop',
    reason: 'done',
    step: steps,
    evalLoss: 3.284,
    bestLoss: 3.284,
    path: `runs/book/checkpoint-${steps}`,
    seconds: 160,
  }
}

/** A stream that keeps what is written and plays a terminal: lines, cursor, and the sequences that the live view uses. */
export class FakeTerminal implements Output {
  readonly isTTY = true
  columns: number
  rows: number
  raw = ''
  cursorHidden = false
  /** Lines from the top of the scrollback on. */
  readonly lines: string[] = ['']
  private row = 0
  private column = 0
  private readonly listeners = new Set<() => void>()

  constructor(columns = 80, rows = 24) {
    this.columns = columns
    this.rows = rows
  }

  on(_event: 'resize', listener: () => void): void {
    this.listeners.add(listener)
  }

  off(_event: 'resize', listener: () => void): void {
    this.listeners.delete(listener)
  }

  get watched(): boolean {
    return this.listeners.size > 0
  }

  resize(columns: number, rows: number): void {
    // Like a terminal that breaks long lines anew.
    const before = this.lines.slice(0, this.row)
    this.columns = columns
    this.rows = rows
    const broken = before.flatMap((line) => line.match(new RegExp(`.{1,${columns}}`, 'gu')) ?? [''])
    this.lines.splice(0, this.lines.length, ...broken, '')
    this.row = broken.length
    this.column = 0
    for (const listener of this.listeners) listener()
  }

  write(text: string): void {
    this.raw += text
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is read
    for (const [piece] of text.matchAll(/\x1b\[\??[0-9;]*[A-Za-z]|[\s\S]/gu)) this.take(piece)
  }

  private take(piece: string): void {
    if (piece === '\n') {
      this.row++
      this.column = 0
      if (this.row === this.lines.length) this.lines.push('')
    } else if (piece === '\r') {
      this.column = 0
    } else if (piece.startsWith('\x1b')) {
      this.control(piece.slice(2))
    } else {
      if (this.column === this.columns) this.take('\n')
      const line = [...this.lines[this.row].padEnd(this.column)]
      line[this.column++] = piece
      this.lines[this.row] = line.join('')
    }
  }

  private control(code: string): void {
    if (code === '?25l') this.cursorHidden = true
    else if (code === '?25h') this.cursorHidden = false
    else if (code === 'K') this.lines[this.row] = [...this.lines[this.row]].slice(0, this.column).join('')
    else if (code === 'J') {
      this.control('K')
      this.lines.length = this.row + 1
    } else if (code.endsWith('A')) {
      const up = Number(code.slice(0, -1))
      if (up > this.rows - 1) throw new Error(`the cursor cannot go up ${up} lines on ${this.rows} rows`)
      this.row = Math.max(0, this.row - up)
    } else if (!/^(\?2026[hl]|[0-9;]*m)$/.test(code)) throw new Error(`unknown sequence ${code}`)
  }
}
