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

/**
 * Cuts text into pieces of about `size` characters at line ends where no token of a byte-level tokenizer can reach across:
 * a single line feed between two characters that are no white space. Text without such places stays whole.
 */
export function* textPieces(text: string, size = 1 << 16): Generator<string> {
  let begin = 0
  while (begin < text.length) {
    let at = Math.min(text.length, begin + size)
    while (at < text.length) {
      at = text.indexOf('\n', at) + 1
      if (at === 0) at = text.length
      else if (at < text.length && at >= 2 && !isSpace(text.charCodeAt(at - 2)) && !isSpace(text.charCodeAt(at))) break
    }
    yield text.slice(begin, at)
    begin = at
  }
}
