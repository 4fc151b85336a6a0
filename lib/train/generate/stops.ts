/**
 * Gives text on up to the first of some stop strings, wherever tokens cut it: what may be the beginning of one is held back until it is known.
 */
export class StopText {
  private held = ''
  /** Whether a stop string was met; what comes after is not given on. */
  stopped = false
  private readonly stops: readonly string[]

  constructor(stops: readonly string[]) {
    this.stops = stops.filter((s) => s !== '')
  }

  /** What of the text so far can be given on now. */
  push(piece: string): string {
    if (this.stopped) return ''
    const text = this.held + piece
    const found = this.stops.map((s) => text.indexOf(s)).filter((at) => at >= 0)
    if (found.length > 0) {
      this.stopped = true
      this.held = ''
      return text.slice(0, Math.min(...found))
    }
    const waits = this.stops.reduce((most, stop) => Math.max(most, overlap(text, stop)), 0)
    this.held = text.slice(text.length - waits)
    return text.slice(0, text.length - waits)
  }

  /** What was held back, at the end of the text. */
  end(): string {
    const rest = this.held
    this.held = ''
    return rest
  }
}

/** How much of the end of a text is the beginning of `stop`, less than all of it. */
function overlap(text: string, stop: string): number {
  for (let n = Math.min(text.length, stop.length - 1); n > 0; n--) if (text.endsWith(stop.slice(0, n))) return n
  return 0
}
