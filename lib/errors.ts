import { fileURLToPath } from 'node:url'

/** What an error is about; stable, so that programs may branch on it. */
export type ErrorCode =
  | 'SHAPE'
  | 'DTYPE'
  | 'OPTION'
  | 'ARGUMENT'
  | 'NO_DERIVATIVE'
  | 'TRACE'
  | 'FILE'
  | 'FORMAT'
  | 'CHECKPOINT'
  | 'NON_FINITE'
  | 'OUT_OF_MEMORY'
  | 'PROGRAM'
  | 'NATIVE'
  | 'DEVICE'
  | 'ABORTED'
  | 'DATA'

/**
 * Every error that steepest throws on purpose. Its message has four parts: who (the op, module path or file), the rule,
 * what came, and what to do.
 */
export class SteepestError extends Error {
  override readonly name = 'SteepestError'
  readonly code: ErrorCode
  readonly who: string
  readonly rule: string
  readonly got: string
  readonly fix: string

  /** The line of the caller's own code that led here, `file:line:column`; empty where there is none. */
  readonly at: string

  constructor(
    code: ErrorCode,
    parts: { who: string; rule: string; got?: string; fix?: string },
    options?: ErrorOptions,
  ) {
    const got = parts.got ? `; got ${parts.got}` : ''
    const fix = parts.fix ? `. ${parts.fix}` : ''
    const at = PROGRAM_ERRORS.has(code) ? callerLine() : ''
    super(`[${parts.who}] ${parts.rule}${got}${fix}${at ? ` (at ${at})` : ''}`, options)
    this.code = code
    this.who = parts.who
    this.rule = parts.rule
    this.got = parts.got ?? ''
    this.fix = parts.fix ?? ''
    this.at = at
  }

  /** Who, the rule, what came and what to do as one sentence for people. */
  get sentence(): string {
    const got = this.got ? `; got ${this.got}` : ''
    const fix = this.fix ? `. ${this.fix}` : ''
    return `${this.who}: ${this.rule}${got}${fix}`
  }
}

/** Errors that a line of the user's program makes, not a file or a number. */
const PROGRAM_ERRORS: ReadonlySet<ErrorCode> = new Set([
  'SHAPE',
  'DTYPE',
  'OPTION',
  'ARGUMENT',
  'NO_DERIVATIVE',
  'TRACE',
])
const own = fileURLToPath(new URL('.', import.meta.url))
/** Frames that are looked through for the caller's: steepest's own lie above it. */
const FRAMES = 60

/** The innermost line on the stack that is neither steepest's nor Node's. */
function callerLine(): string {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = FRAMES
  const { stack = '' } = new Error()
  Error.stackTraceLimit = stackTraceLimit
  for (const line of stack.split('\n').slice(1)) {
    const [, place] = /\(?((?:file:\/\/)?[^\s()]+:\d+:\d+)\)?$/.exec(line) ?? []
    if (place === undefined || place.includes('node:') || place.includes('/node_modules/')) continue
    const path = place.startsWith('file://') ? place.slice('file://'.length) : place
    if (!path.startsWith(own)) return path
  }
  return ''
}

function distance(a: string, b: string): number {
  const row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    let diagonal = row[0]
    row[0] = i
    for (let j = 1; j <= b.length; j++) {
      const above = row[j]
      row[j] = Math.min(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] === b[j - 1] ? 0 : 1))
      diagonal = above
    }
  }
  return row[b.length]
}

/** The known word nearest to `word`, if it is near enough to be a slip of the hand. */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  const plain = (s: string) => s.toLowerCase().replace(/[-_]/g, '')
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    const d = distance(plain(word), plain(candidate))
    if (d < bestDistance) {
      best = candidate
      bestDistance = d
    }
  }
  return best
}

/** Throws when `options` has a key that is not in `known`, naming the near one. */
export function checkOptions(who: string, options: object, known: readonly string[]): void {
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue
    const near = nearest(key, known)
    throw new SteepestError('OPTION', {
      who,
      rule: `unknown option \`${key}\``,
      fix: near ? `Did you mean \`${near}\`?` : `Known options: ${known.join(', ')}`,
    })
  }
}
