import type { Buf } from './plan.js'

const ALIGNMENT = 64
const align = (n: number): number => Math.ceil(n / ALIGNMENT) * ALIGNMENT

/**
 * Gives every buffer an offset such that no two that live at once overlap: the largest first, each into the smallest gap that fits between
 * those it meets. Returns the size of the arena.
 */
export function allocate(bufs: readonly Buf[]): number {
  const placed: Buf[] = []
  let total = 0
  for (const buf of [...bufs].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    const size = align(buf.bytes)
    let at = 0
    let best = -1
    let bestGap = Infinity
    for (const other of placed) {
      if (other.last < buf.first || buf.last < other.first) continue
      const gap = other.at - at
      if (gap >= size && gap < bestGap) {
        best = at
        bestGap = gap
      }
      at = Math.max(at, other.at + align(other.bytes))
    }
    buf.at = best >= 0 ? best : at
    total = Math.max(total, buf.at + size)
    // Kept sorted by offset, so that one sweep sees the gaps.
    let low = 0
    let high = placed.length
    while (low < high) {
      const mid = (low + high) >> 1
      if (placed[mid].at < buf.at) low = mid + 1
      else high = mid
    }
    placed.splice(low, 0, buf)
  }
  return total
}
