import type { Progress } from './progress.js'
import { type PlotOptions, plotSvg } from './svg.js'

/** The loss curve of a run, as the text of `loss.svg`: the training loss of every step pale, its running mean, and the validation loss. */
export function lossSvg(progress: Progress, options: PlotOptions = {}): string {
  const raw = progress.train.points.map(({ step, value }) => ({ x: step, y: value }))
  const validation = progress.validation.points.map(({ step, value }) => ({ x: step, y: value }))
  return plotSvg(
    [
      { name: 'training, every step', points: raw, faint: true, color: 0 },
      { name: 'training, running mean', points: runningMean(raw, Math.max(1, Math.round(raw.length / 50))), color: 0 },
      { name: 'validation', points: validation, kind: 'marked', color: 1 },
    ],
    { xLabel: 'step', yLabel: 'loss (nats per token)', ...options },
  )
}

/**
 * The mean of the points within `span / 2` before and after each: no lag, unlike that of the last ones. Near the start, where a loss falls fast,
 * as many before as after; at the end there are fewer after.
 */
function runningMean(points: readonly { x: number; y: number }[], span: number): { x: number; y: number }[] {
  const sums = [0]
  for (const { y } of points) sums.push(sums[sums.length - 1] + y)
  const reach = Math.floor(span / 2)
  return points.map(({ x }, i) => {
    const before = Math.min(reach, i)
    const after = Math.min(before, points.length - 1 - i)
    return { x, y: (sums[i + after + 1] - sums[i - before]) / (before + after + 1) }
  })
}
