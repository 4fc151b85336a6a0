import { SteepestError } from '../errors.js'
import type { StopReason, TrainEvent } from './events.js'

/** What a run came to. */
export interface TrainResult {
  reason: StopReason
  step: number
  /** Mean loss of the last step. */
  loss: number
  evalLoss?: number
  bestLoss?: number
  /** The last checkpoint that was saved. */
  path?: string
}

/** A run under way: iterate over its events, or await it. */
export class Run implements AsyncIterable<TrainEvent>, PromiseLike<TrainResult> {
  private readonly events: AsyncGenerator<TrainEvent, TrainResult>
  private finished: Promise<TrainResult> | undefined

  /** @internal */
  constructor(events: AsyncGenerator<TrainEvent, TrainResult>) {
    this.events = events
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TrainEvent, void> {
    let settle!: (result: TrainResult) => void
    let fail!: (error: unknown) => void
    this.finished ??= new Promise((resolve, reject) => {
      settle = resolve
      fail = reject
    })
    this.finished.catch(() => undefined)
    try {
      for (;;) {
        const next = await this.events.next()
        if (next.done) {
          settle?.(next.value)
          return
        }
        yield next.value
      }
    } catch (error) {
      fail?.(error)
      throw error
    } finally {
      await this.events.return(undefined as never)
      // No-ops but where the reader left: who awaits the run then must not wait for ever.
      fail?.(new SteepestError('ABORTED', { who: 'train', rule: 'the run ended as its events were no longer read' }))
    }
  }

  /** @internal What happens, for a run that this one is part of. */
  get stream(): AsyncGenerator<TrainEvent, TrainResult> {
    return this.events
  }

  private async drain(): Promise<TrainResult> {
    for (;;) {
      const next = await this.events.next()
      if (next.done) return next.value
    }
  }

  then<A = TrainResult, B = never>(
    onDone?: ((result: TrainResult) => A | PromiseLike<A>) | null,
    onError?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return (this.finished ??= this.drain()).then(onDone, onError)
  }
}
