import { createReadStream, existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { atomicWriteFile } from '../io/files.js'
import type { TrainEvent } from './events.js'
import { follow, newProgress, type Progress } from './progress.js'
import { lossSvg } from './svg-loss.js'

/** The picture is drawn at evaluations and saves, but not more often than this. */
const PAUSE_MS = 5000

/** Takes what `run.jsonl` tells of the steps before a resumed run into its state. */
async function recall(progress: Progress, folder: string, throughStep: number): Promise<void> {
  const path = join(folder, 'run.jsonl')
  if (!existsSync(path)) return
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
    let event: TrainEvent
    try {
      event = JSON.parse(line) as TrainEvent
    } catch {
      // A line that a kill tore is no reason not to draw the others.
      continue
    }
    if ((event.type === 'step' || event.type === 'eval') && event.step <= throughStep) follow(progress, event)
  }
}

/**
 * Hands the events of a run on, and keeps `loss.svg` in its folder up to date: the course of training and validation loss from step 0 on, resumed
 * parts included. A picture that cannot be written is told once, as a warning; the run goes on.
 *
 * @param folder the run's; nothing is drawn where it is not there
 * @param title what the run is called in the picture
 */
export async function* drawingLoss(
  events: AsyncIterable<TrainEvent>,
  folder: string,
  title?: string,
): AsyncGenerator<TrainEvent> {
  const progress = newProgress()
  let drawn = Number.NEGATIVE_INFINITY
  let told = false
  for await (const event of events) {
    if (event.type === 'start' && event.fromStep > 0) await recall(progress, folder, event.fromStep)
    follow(progress, event)
    const ends = event.type === 'stop'
    const due = ends || ((event.type === 'eval' || event.type === 'save') && performance.now() - drawn >= PAUSE_MS)
    if (due && progress.train.points.length > 0 && existsSync(folder)) {
      drawn = performance.now()
      try {
        await atomicWriteFile(join(folder, 'loss.svg'), lossSvg(progress, { title }))
      } catch (error) {
        if (!told) yield { type: 'warning', step: progress.step?.step ?? 0, message: (error as Error).message }
        told = true
      }
    }
    yield event
  }
}
