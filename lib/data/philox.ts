/** The high and the low half of a product of two numbers of 32 bits. */
function product(a: number, b: number): [high: number, low: number] {
  const [ah, al, bh, bl] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff]
  const low = al * bl
  const middle = ah * bl + (low >>> 16)
  const carry = al * bh + (middle % 0x10000)
  return [(ah * bh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0, Math.imul(a, b) >>> 0]
}

/** Four random numbers of 32 bits for a counter of four and a key of two: Philox 4x32-10 (Salmon et al. 2011). */
export function philox(counter: readonly number[], key: readonly number[]): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter.map((c) => c >>> 0)
  let [k0, k1] = key.map((k) => k >>> 0)
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = product(0xd2511f53, c0)
    const [high1, low1] = product(0xcd9e8d57, c2)
    ;[c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0]
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1, c2, c3]
}
