/**
 * The byte-level alphabet of GPT-2: every byte has a printable character, so that tokens can be written as JSON text.
 * Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
 */

const isPlain = (b: number): boolean => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff)

/** The character that stands for each byte: printable Latin-1 for itself, the others from U+0100 on. */
export const BYTE_CHARS: readonly string[] = (() => {
  let next = 256
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(isPlain(b) ? b : next++))
})()

const CHAR_BYTES = new Map(BYTE_CHARS.map((char, byte) => [char.charCodeAt(0), byte]))

/** How GPT-2 cuts text before bytes are merged: contractions, words, numbers, other signs (each with a space before), white space. */
export const GPT2_PATTERN = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu

/** The bytes of a token that is written in the alphabet; `undefined` where it has other characters. */
export function tokenBytes(token: string): Uint8Array | undefined {
  const bytes = new Uint8Array(token.length)
  for (let i = 0; i < token.length; i++) {
    const byte = CHAR_BYTES.get(token.charCodeAt(i))
    if (byte === undefined) return undefined
    bytes[i] = byte
  }
  return bytes
}

/** Bytes written in the alphabet. */
export function bytesToken(bytes: Uint8Array): string {
  let token = ''
  for (const byte of bytes) token += BYTE_CHARS[byte]
  return token
}

const isSpace = (code: number): boolean => /\s/.test(String.fromCharCode(code))

/** Characters beyond the size of a piece after which it is cut at a space, where no line end comes, or at last anywhere. */
const PATIENCE = 1 << 20

/** Where a piece ends that has `least` characters before: at a plain line end, or a plain space, or the end of the text; −1 where more of the text must be seen. */
function pieceEnd(text: string, least: number, last: boolean): number {
  const most = least + PATIENCE
  for (const sign of ['\n', ' ']) {
    for (
      let at = text.indexOf(sign, least) + 1;
      at > 0 && at < text.length && at <= most;
      at = text.indexOf(sign, at) + 1
    ) {
      const isPlain = at >= 2 && !isSpace(text.charCodeAt(at - 2)) && !isSpace(text.charCodeAt(at))
      // A line feed ends a piece, a space begins one.
      if (isPlain) return sign === '\n' ? at : at - 1
    }
    if (text.length <= most) return last ? text.length : -1
  }
  const isLow = (text.charCodeAt(most) & 0xfc00) === 0xdc00
  return isLow ? most - 1 : most
}

/**
 * Cuts a text, which comes in parts, into pieces of about `size` characters at line ends where no token of a byte-level tokenizer can reach across:
 * a single line feed between two characters that are no white space; after a million characters without one at a single space, and after as many
 * without that anywhere. Where it is cut does not depend on the parts.
 */
export class TextPieces {
  private rest = ''

  constructor(private readonly size = 1 << 16) {}

  *push(part: string): Generator<string> {
    this.rest += part
    yield* this.taken(false)
  }

  *end(): Generator<string> {
    yield* this.taken(true)
    this.rest = ''
  }

  private *taken(last: boolean): Generator<string> {
    const { rest, size } = this
    let begin = 0
    while (begin < rest.length) {
      if (rest.length - begin <= size && !last) break
      const end = rest.length - begin <= size ? rest.length : pieceEnd(rest, begin + size, last)
      if (end < 0) break
      yield rest.slice(begin, end)
      begin = end
    }
    this.rest = rest.slice(begin)
  }
}

/** The {@link TextPieces} of a text. */
export function* textPieces(text: string, size?: number): Generator<string> {
  const pieces = new TextPieces(size)
  yield* pieces.push(text)
  yield* pieces.end()
}
