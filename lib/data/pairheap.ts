/** Pairs by count, the largest first, of equal counts the lowest pair. Entries are not updated: the owner drops stale ones. */
export class PairHeap {
  private readonly counts: number[] = []
  private readonly pairs: number[] = []

  push(count: number, pair: number): void {
    let i = this.counts.length
    this.counts.push(count)
    this.pairs.push(pair)
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!this.before(i, parent)) break
      this.swap(i, parent)
      i = parent
    }
  }

  pop(): { count: number; pair: number } | undefined {
    const last = this.counts.length - 1
    if (last < 0) return undefined
    this.swap(0, last)
    const count = this.counts.pop()!
    const pair = this.pairs.pop()!
    for (let i = 0; ; ) {
      const left = 2 * i + 1
      if (left >= last) break
      const child = left + 1 < last && this.before(left + 1, left) ? left + 1 : left
      if (!this.before(child, i)) break
      this.swap(i, child)
      i = child
    }
    return { count, pair }
  }

  private before(i: number, j: number): boolean {
    const d = this.counts[i] - this.counts[j]
    return d > 0 || (d === 0 && this.pairs[i] < this.pairs[j])
  }

  private swap(i: number, j: number): void {
    const count = this.counts[i]
    const pair = this.pairs[i]
    this.counts[i] = this.counts[j]
    this.pairs[i] = this.pairs[j]
    this.counts[j] = count
    this.pairs[j] = pair
  }
}
