import { afterEach, describe, expect, test, vi } from 'vitest'
import { follow, newProgress } from '../../lib/train/progress.js'
import { liveLines, openView } from '../../lib/train/terminal.js'
import { stepLine } from '../../lib/train/terminal-lines.js'
import { columns } from '../../lib/train/terminal-text.js'
import { evalEvent, FakeTerminal, fakeRun, start, stepEvent } from './terminal-fake.js'

const env = { LANG: 'C.UTF-8', NO_COLOR: '1' }
const progressOf = (steps: number) => {
  const progress = newProgress()
  for (const event of fakeRun()) {
    if (event.type === 'stop' || ('step' in event && event.step > steps)) break
    follow(progress, event)
  }
  return progress
}

afterEach(() => void vi.useRealTimers())

describe('the live block', () => {
  test('shows bar, figures, curve and sample', () => {
    expect(liveLines(progressOf(300), { width: 79, height: 23, color: false, unicode: true })).toMatchInlineSnapshot(`
      [
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━────────────  step 300/400  75%  eta 0:40",
        "train 3.520  val 3.368  lr 5.8e-4  grad 0.920",
        "12.4k tok/s  165 ms/step  63% of peak  memory 180 MB of 186 MB",
        "  │  ⠈⠢⡀",
        "7 ┤    ⠈⠢⣀",
        "  │       ⠑⢄⡀",
        "6 ┤         ⠈⠢⢄⡀",
        "  │            ⠈⠒⠤⣀",
        "5 ┤                ⠉⠒⠢⢄⣀",
        "  │                     ⠉⠒⠢⢄◆⠢⠤⠤⢄⣀⣀",
        "4 ┤                          ⠉⠒⠒⠤⠤⢄⠉⠉⠉⠒⠒⠢⠤⠤⣀⣀⣀",
        "  │                                  ⠉⠉⠑⠒⠢⠤⠤⣀⣀⠉⠉⠑⠒⠒⠢◆⠤⠤⠤⠤⣀⣀⣀⣀⣀⣀⣀⣀",
        "  │                                              ⠉⠉⠉⠉⠉⠒⠒⠒⠒⠒⠤⠤⠤⠤⠤⠤⠉⠉⠉⠉⠉⠉⠉⠉⠑⠒⠒⠒◆",
        "  └┬────────────────────────┬───────────────────────┬────────────────────────┬",
        "   0                       100                     200                      300",
        "── sample at step 200 ────",
        "The ship was in the",
        "harbour.",
      ]
    `)
  })

  test('counts rows or images where the data are such', () => {
    const progress = progressOf(300)
    const rates = (unit?: string) => {
      const told = { ...progress, start: { ...progress.start!, unit } }
      const [, , figures] = liveLines(told, { width: 79, height: 23, color: false, unicode: true })
      return [
        figures.split('  ')[0],
        stepLine(told, progress.step!)
          .split('  ')
          .find((part) => part.endsWith('/s')),
      ]
    }
    expect(rates()).toEqual(['12.4k tok/s', '12.4k tok/s'])
    expect(rates('rows')).toEqual(['12.4k rows/s', '12.4k rows/s'])
    expect(rates('images')).toEqual(['12.4k images/s', '12.4k images/s'])
  })

  test('in ASCII', () => {
    expect(liveLines(progressOf(300), { width: 60, height: 18, color: false, unicode: false })).toMatchInlineSnapshot(`
      [
        "=======================--------  step 300/400  75%  eta 0:40",
        "train 3.520  val 3.368  lr 5.8e-4  grad 0.920",
        "12.4k tok/s  165 ms/step  63% of peak",
        "memory 180 MB of 186 MB",
        "  |  .",
        "  |   ..",
        "  |     ..",
        "6 +       ...",
        "  |          ....",
        "  |              ....o....",
        "4 +                  ...............",
        "  |                         ............o........",
        "  |                                      .................o",
        "  ++-----------------+------------------+-----------------+",
        "   0                100                200               300",
        "-- sample at step 200 ----",
        "The ship was in the",
        "harbour.",
      ]
    `)
  })

  test('before the first step', () => {
    const progress = newProgress()
    follow(progress, start)
    expect(liveLines(progress, { width: 79, height: 23, color: false, unicode: true })).toMatchInlineSnapshot(`
      [
        "─────────────────────────────────────────────────────  step 0/400  0%  eta -:--",
      ]
    `)
  })

  test('fits every screen', () => {
    const progress = progressOf(300)
    for (const color of [true, false]) {
      for (let width = 1; width < 130; width += 3) {
        for (let height = 1; height < 30; height += 2) {
          const lines = liveLines(progress, { width, height, color, unicode: true })
          expect(lines.length).toBeLessThanOrEqual(height)
          for (const line of lines) expect(columns(line)).toBeLessThanOrEqual(width)
        }
      }
    }
  })

  test('has no colour and only ASCII where asked', () => {
    const text = liveLines(progressOf(300), { width: 79, height: 23, color: false, unicode: false }).join('\n')
    expect(text).toMatch(/^[\n\x20-\x7e]+$/)
  })

  test('survives values that are not finite', () => {
    const progress = newProgress()
    follow(progress, start)
    follow(progress, stepEvent(1, { loss: Number.NaN, gradNorm: Number.NaN, mfu: Number.NaN }))
    follow(progress, stepEvent(2, { loss: Number.POSITIVE_INFINITY }))
    const lines = liveLines(progress, { width: 79, height: 23, color: false, unicode: true })
    expect(lines[1]).toBe('train NaN  lr 5.8e-4  grad 0.920')
  })
})

describe('the live view', () => {
  test('redraws in place, keeps notes above, ends with the outcome and gives the cursor back', () => {
    const terminal = new FakeTerminal(90, 30)
    const view = openView(terminal, { env, interval: 0 })
    expect(terminal.cursorHidden).toBe(true)
    for (const event of fakeRun()) view.show(event)
    view.close()
    view.close()
    expect(terminal.cursorHidden).toBe(false)
    expect(terminal.watched).toBe(false)
    expect(terminal.lines).toMatchInlineSnapshot(`
      [
        "model     GPT: 6 layers, 6 heads, width 192 · 2.91M parameters · float32",
        "data      book.txt: 1.2 MB, 301k tokens, 10% for validation · byte pairs, 2048 entries",
        "steps     400, of 2,048 tokens (batch 8 × 2, context 128)",
        "optimizer adamw, lr 6e-4 · warm-up 20, then cosine · seed 1",
        "memory    186 MB at the peak: weights 11.6 MB, gradients 3 MB, optimizer 23.2 MB,",
        "          activations 120 MB, workspace 8 MB, other 20 MB",
        "machine   2 threads · 210 GFLOP/s measured",
        "folder    runs/book",
        "chosen    layers 6: 400 steps of it take three minutes here",
        "saved runs/book/checkpoint-200 (34.8 MB)",
        "warning: bfloat16 is slow on this CPU",
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  step 400/400  100%  in 2:40",
        "train 3.222  val 3.284  lr 5.8e-4  grad 0.920",
        "12.4k tok/s  165 ms/step  63% of peak  memory 180 MB of 186 MB",
        "  │  ⠑⡄",
        "7 ┤   ⠈⠢⣀",
        "  │      ⠑⢄⡀",
        "6 ┤        ⠈⠢⢄",
        "  │           ⠑⠢⣀",
        "5 ┤              ⠉⠢⢄⡀",
        "  │                 ⠈⠑⠢⢄◆⠑⠒⠒⠤⠤⣀⣀⡀",
        "4 ┤                      ⠉⠉⠑⠒⠤⣀⡀⠈⠉⠉⠒⠒⠢⠤⠤⣀⣀",
        "  │                            ⠈⠉⠉⠉⠉⠒⠒⠤⠤⣀⣀⠉⠉⠑◆⠒⠒⠒⠤⠤⠤⠤⠤⠤⠤⣀⣀⣀⣀⣀⣀⣀",
        "  │                                         ⠈⠉⠉⠉⠉⠉⠑⠒⠒⠒⠒⠒⠒⠤⠤⠤⠤⠤⠤⠉⠉⠉◆⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒◆",
        "  └┬────────────────────┬────────────────────┬────────────────────┬────────────────────┬",
        "   0                   100                  200                  300                  400",
        "── sample at step 200 ────",
        "The ship was in the",
        "harbour.",
        "done after 400 steps in 2:40, validation loss 3.284",
        "checkpoint runs/book/checkpoint-400",
        "",
      ]
    `)
  })

  test('draws at most once per interval', () => {
    vi.useFakeTimers()
    const terminal = new FakeTerminal()
    const view = openView(terminal, { env, interval: 100 })
    view.show(start)
    const drawn = () => terminal.raw.split('\x1b[?2026h').length - 1
    const before = drawn()
    for (let step = 1; step <= 50; step++) view.show(stepEvent(step))
    expect(drawn()).toBe(before)
    vi.advanceTimersByTime(100)
    expect(drawn()).toBe(before + 1)
    expect(terminal.lines.join('\n')).toContain('step 50/400')
    view.close()
  })

  test('stays whole when the terminal is resized', () => {
    const terminal = new FakeTerminal(100, 30)
    const view = openView(terminal, { env, interval: 0 })
    view.show(start)
    for (let step = 10; step <= 100; step += 10) view.show(stepEvent(step))
    for (const [width, height] of [
      [50, 30],
      [120, 30],
      [40, 60],
    ]) {
      terminal.resize(width, height)
      view.show(stepEvent(110))
      expect(terminal.lines.filter((line) => line.includes('step 110/400'))).toHaveLength(1)
      expect(terminal.lines.filter((line) => line.includes('step 100/400'))).toHaveLength(0)
      view.show(stepEvent(100))
    }
    view.close()
  })

  test('does not let a sample drive the terminal', () => {
    const terminal = new FakeTerminal()
    const view = openView(terminal, { env, interval: 0 })
    view.show(start)
    view.show({ type: 'sample', step: 1, prompt: '', text: 'a\x1b[2Jb\x07c\x9b5md\u202ee' })
    view.close()
    expect(terminal.lines.join('\n')).toContain('a·[2Jb·c·5md·e')
  })

  test('uses colours only where NO_COLOR does not forbid them', () => {
    const colourful = new FakeTerminal()
    const plain = new FakeTerminal()
    for (const [terminal, more] of [
      [colourful, {}],
      [plain, { NO_COLOR: '1' }],
    ] as const) {
      const view = openView(terminal, { env: { LANG: 'C.UTF-8', ...more }, interval: 0 })
      for (const event of fakeRun()) view.show(event)
      view.close()
    }
    expect(colourful.raw).toContain('\x1b[36m')
    expect(plain.raw).not.toContain('\x1b[3')
    expect(colourful.lines).toEqual(plain.lines)
  })
})

describe('without a terminal', () => {
  const written = (options: object) => {
    let text = ''
    const view = openView({ write: (t: string) => (text += t) }, { env, ...options })
    for (const event of fakeRun()) view.show(event)
    view.close()
    return text
  }

  test('plain lines, one per log interval', () => {
    expect(written({ logEvery: 100 })).toMatchInlineSnapshot(`
      "model     GPT: 6 layers, 6 heads, width 192 · 2.91M parameters · float32
      data      book.txt: 1.2 MB, 301k tokens, 10% for validation · byte pairs, 2048 entries
      steps     400, of 2,048 tokens (batch 8 × 2, context 128)
      optimizer adamw, lr 6e-4 · warm-up 20, then cosine · seed 1
      memory    186 MB at the peak: weights 11.6 MB, gradients 3 MB, optimizer 23.2 MB, activations 120 MB, workspace 8 MB, other 20 MB
      machine   2 threads · 210 GFLOP/s measured
      folder    runs/book
      chosen    layers 6: 400 steps of it take three minutes here
      step 10/400  loss 7.412  lr 5.8e-4  grad 0.920  12.4k tok/s  165 ms/step  63% of peak  memory 180 MB of 186 MB  eta 2:36
      step 100/400  loss 4.433  lr 5.8e-4  grad 0.920  12.4k tok/s  165 ms/step  63% of peak  memory 180 MB of 186 MB  eta 2:00
      eval 100  loss 4.683  perplexity 108  best
      step 200/400  loss 3.410  lr 5.8e-4  grad 0.920  12.4k tok/s  165 ms/step  63% of peak  memory 180 MB of 186 MB  eta 1:20
      eval 200  loss 3.660  perplexity 38.9  best
      sample 200:
        The ship was in the
        harbour.
      saved runs/book/checkpoint-200 (34.8 MB)
      step 300/400  loss 3.118  lr 5.8e-4  grad 0.920  12.4k tok/s  165 ms/step  63% of peak  memory 180 MB of 186 MB  eta 0:40
      eval 300  loss 3.368  perplexity 29.0  best
      warning: bfloat16 is slow on this CPU
      step 400/400  loss 3.034  lr 5.8e-4  grad 0.920  12.4k tok/s  165 ms/step  63% of peak  memory 180 MB of 186 MB  eta 0:00
      eval 400  loss 3.284  perplexity 26.7  best
      done after 400 steps in 2:40, validation loss 3.284
      checkpoint runs/book/checkpoint-400
      "
    `)
  })

  test('one JSON object per event', () => {
    const lines = written({ json: true }).trimEnd().split('\n')
    expect(lines.map((line) => JSON.parse(line).type)).toEqual([...fakeRun()].map((event) => event.type))
    let text = ''
    openView({ write: (t: string) => (text += t) }, { json: true }).show(
      stepEvent(1, { loss: Number.NaN, mfu: -1 / 0 }),
    )
    expect(JSON.parse(text)).toMatchObject({ loss: 'nan', mfu: '-inf' })
  })

  test('a dumb terminal gets plain lines', () => {
    const terminal = new FakeTerminal()
    const view = openView(terminal, { env: { TERM: 'dumb' } })
    view.show(stepEvent(10))
    view.show(evalEvent(10))
    view.close()
    expect(terminal.raw).not.toContain('\x1b')
  })
})
