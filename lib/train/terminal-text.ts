/** What a terminal can show. */
export interface Abilities {
  color: boolean
  unicode: boolean
}

/** The names of the styles that steepest uses. */
export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'blue' | 'cyan'

const CODES: Record<Style, [number, number]> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  blue: [34, 39],
  cyan: [36, 39],
}

/** The text in a style, or as it is where there are no colours. */
export function styled(text: string, style: Style, color: boolean): string {
  return color ? `\x1b[${CODES[style][0]}m${text}\x1b[${CODES[style][1]}m` : text
}

/**
 * What the terminal behind a stream can show. Colours follow NO_COLOR and FORCE_COLOR; characters beyond ASCII follow the
 * locale (LC_ALL, LC_CTYPE, LANG), which on Windows and macOS is taken to be UTF-8.
 */
export function abilities(
  stream: { isTTY?: boolean },
  env: Readonly<Record<string, string | undefined>> = process.env,
  platform: string = process.platform,
): Abilities {
  const forced = env.FORCE_COLOR !== undefined && env.FORCE_COLOR !== '0' && env.FORCE_COLOR !== 'false'
  const color = !env.NO_COLOR && (forced || (Boolean(stream.isTTY) && env.TERM !== 'dumb'))
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || ''
  return { color, unicode: platform === 'win32' || platform === 'darwin' || /utf-?8/i.test(locale) }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked for
const ESCAPE = /\x1b\[[0-9;]*m/y

/** Columns that a character takes: 0 for marks that combine, 2 for wide ones, else 1. */
function columnsOf(code: number): number {
  if (code < 0x300) return 1
  if (
    (code >= 0x300 && code <= 0x36f) ||
    (code >= 0x1ab0 && code <= 0x1aff) ||
    (code >= 0x200b && code <= 0x200f) ||
    (code >= 0x20d0 && code <= 0x20ff) ||
    (code >= 0xfe00 && code <= 0xfe0f) ||
    (code >= 0xfe20 && code <= 0xfe2f) ||
    code === 0xfeff
  ) {
    return 0
  }
  const wide =
    (code >= 0x1100 && code <= 0x115f) ||
    (code >= 0x2e80 && code <= 0xa4cf && code !== 0x303f) ||
    (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) ||
    (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0xffe0 && code <= 0xffe6) ||
    (code >= 0x1f300 && code <= 0x1f64f) ||
    (code >= 0x1f680 && code <= 0x1faff) ||
    (code >= 0x20000 && code <= 0x3fffd)
  return wide ? 2 : 1
}

/** Columns that the text takes on a terminal; style codes take none. */
export function columns(text: string): number {
  return walk(text, Number.POSITIVE_INFINITY).used
}

/** The text cut to at most `width` columns; styles that were open are closed. */
export function cut(text: string, width: number): string {
  const { end, open } = walk(text, width)
  if (end === text.length) return text
  return text.slice(0, end) + (open ? '\x1b[0m' : '')
}

function walk(text: string, width: number): { end: number; used: number; open: boolean } {
  let used = 0
  let open = false
  let at = 0
  while (at < text.length) {
    ESCAPE.lastIndex = at
    const code = text[at] === '\x1b' ? ESCAPE.exec(text)?.[0] : undefined
    if (code) {
      open = !/\[(0|22|39)?m$/.test(code)
      at += code.length
      continue
    }
    const point = text.codePointAt(at) as number
    const next = columnsOf(point)
    if (used + next > width) return { end: at, used, open }
    used += next
    at += point > 0xffff ? 2 : 1
  }
  return { end: at, used, open }
}

/** Text from outside made harmless: tabs become spaces, control characters (escape sequences, marks
 * that turn the direction of writing) become a visible mark. */
export function harmless(text: string, unicode: boolean): string {
  const mark = unicode ? '·' : '?'
  const plain = text
    .replace(/\r\n?/g, '\n')
    .replace(/\t/g, '  ')
    .replace(/[^\P{Cc}\n]|[\u202a-\u202e\u2066-\u2069]/gu, mark)
  return unicode ? plain : plain.replace(/[^\n\x20-\x7e]/gu, mark)
}

/** The lines of a text, each at most `width` columns, broken between words where a word fits; at most `most` lines. */
export function wrapped(text: string, width: number, most: number): string[] {
  const lines: string[] = []
  for (const paragraph of text.split('\n')) {
    let rest = paragraph.trimEnd()
    do {
      if (lines.length === most) return lines
      const piece = cut(rest, width)
      const space = piece.length < rest.length && rest[piece.length] !== ' ' ? piece.lastIndexOf(' ') : -1
      const taken = space > piece.length / 2 ? piece.slice(0, space) : piece
      lines.push(taken.trimEnd())
      rest = rest.slice(Math.max(taken.length, rest ? 1 : 0)).replace(/^ /, '')
    } while (rest)
  }
  return lines
}
