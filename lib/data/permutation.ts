/** Mixes a word so that every bit of the result depends on every bit of it (the finalizer of MurmurHash3). */
function mix(word: number): number {
  let h = word
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** A 32-bit number that depends on all of the words, in their order. */
export function hash32(...words: readonly number[]): number {
  return words.reduce((h, word) => mix((Math.imul(h, 0x9e3779b1) + (word >>> 0) + 0x7f4a7c15) | 0), 0x2545f491)
}

const ROUNDS = 8
/** Permutations are of at most this many things. */
const MAX = 2 ** 32

/**
 * A shuffle that takes no memory: the function gives, for each place in [0, n), the thing that stands there, each once.
 * A Feistel network over the next power of four; what falls outside is sent through again until it falls inside
 * (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", cycle walking).
 *
 * @param n whole number from 0 to 2^32
 * @param seed the same words give the same shuffle
 */
export function permutation(n: number, ...seed: readonly number[]): (place: number) => number {
  if (!Number.isSafeInteger(n) || n < 0 || n > MAX) throw new RangeError(`a permutation of ${n}`)
  let half = 1
  while (4 ** half < n) half++
  const size = 2 ** half
  const keys = Array.from({ length: ROUNDS }, (_, round) => hash32(...seed, n, round))
  const once = (x: number): number => {
    let left = Math.floor(x / size)
    let right = x % size
    for (const key of keys) {
      const f = mix(right ^ key) % size
      const next = (left ^ f) >>> 0
      left = right
      right = next
    }
    return left * size + right
  }
  return (place) => {
    let x = once(place)
    while (x >= n) x = once(x)
    return x
  }
}
