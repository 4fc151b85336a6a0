import type { Buf } from './instruction.js'

const ALIGNMENT = 64
export const align = (n: number): number => Math.ceil(n / ALIGNMENT) * ALIGNMENT

/** Orders in which buffers are placed; the first that leaves no gaps is taken. */
const ORDERS: readonly ((a: Buf, b: Buf) => number)[] = [
  (a, b) => b.bytes - a.bytes || a.first - b.first,
  (a, b) => b.last - b.first - (a.last - a.first) || b.bytes - a.bytes,
  (a, b) => (b.last - b.first + 1) * b.bytes - (a.last - a.first + 1) * a.bytes || a.first - b.first,
  (a, b) => a.first - b.first || b.bytes - a.bytes,
]

/** Most bytes that live at once: no arena can be smaller. */
export function liveBytes(bufs: readonly Buf[]): number {
  const changes = bufs.flatMap((b): [number, number][] => [
    [b.first, align(b.bytes)],
    [b.last + 1, -align(b.bytes)],
  ])
  let live = 0
  let most = 0
  // What ends is gone before what begins at the same instruction.
  for (const [, bytes] of changes.sort((a, b) => a[0] - b[0] || a[1] - b[1])) most = Math.max(most, (live += bytes))
  return most
}

/**
 * Gives every buffer an offset such that no two that live at once overlap: in one of several orders, each into the smallest gap that fits
 * between those it meets. Returns the size of the arena.
 */
export function allocate(bufs: readonly Buf[]): number {
  const least = liveBytes(bufs)
  let best = Infinity
  let places: number[] = []
  for (const compare of ORDERS) {
    const total = place(bufs, compare)
    if (total < best) {
      best = total
      places = bufs.map((b) => b.at)
    }
    if (best <= least) break
  }
  bufs.forEach((b, i) => {
    b.at = places[i]
  })
  return best
}

function place(bufs: readonly Buf[], compare: (a: Buf, b: Buf) => number): number {
  const placed: Buf[] = []
  let total = 0
  for (const buf of [...bufs].sort(compare)) {
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
