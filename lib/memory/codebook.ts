/** Numbers that stand for all others, ascending, and which of them stands for each. */
export interface Clusters {
  readonly centers: Float64Array
  readonly codes: Uint8Array
}

/** Where each cluster ends in sorted values: values up to halfway to the next centre belong to it. */
function cuts(sorted: Float64Array, centers: Float64Array): Int32Array {
  const ends = new Int32Array(centers.length)
  for (let k = 0; k < centers.length; k++) {
    const edge = k + 1 < centers.length ? (centers[k] + centers[k + 1]) / 2 : Infinity
    let [low, high] = [k > 0 ? ends[k - 1] : 0, sorted.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sorted[middle] <= edge) low = middle + 1
      else high = middle
    }
    ends[k] = low
  }
  return ends
}

/**
 * k-means of numbers (Lloyd), from evenly spaced quantiles until nothing moves. A cluster that has become empty begins again at the number
 * farthest from its centre.
 */
export function kmeans(values: ArrayLike<number>, k: number, rounds = 100): Clusters {
  const sorted = Float64Array.from(values).sort()
  const n = sorted.length
  const sums = new Float64Array(n + 1)
  sorted.forEach((v, i) => (sums[i + 1] = sums[i] + v))
  let centers = Float64Array.from({ length: k }, (_, i) => sorted[Math.floor(((i + 0.5) * n) / k)])
  for (let round = 0; round < rounds; round++) {
    const ends = cuts(sorted, centers)
    const next = centers.map((_, i) => {
      const from = i > 0 ? ends[i - 1] : 0
      return ends[i] > from ? (sums[ends[i]] - sums[from]) / (ends[i] - from) : Number.NaN
    })
    const empty = next.findIndex(Number.isNaN)
    if (empty >= 0) {
      const far = (v: number) => Math.min(...next.map((c) => (Number.isNaN(c) ? Infinity : Math.abs(v - c))))
      // The farthest number is at an end of a cluster.
      const ends1 = [...ends].flatMap((end, i) => [i > 0 ? ends[i - 1] : 0, end - 1]).filter((i) => i >= 0 && i < n)
      next[empty] = ends1.map((i) => sorted[i]).reduce((a, b) => (far(b) > far(a) ? b : a))
    }
    next.sort()
    if (next.every((c, i) => c === centers[i])) break
    centers = next
  }
  return { centers, codes: Uint8Array.from(values, (v) => nearestOf(centers, v)) }
}

function nearestOf(centers: Float64Array, value: number): number {
  let best = 0
  for (let k = 1; k < centers.length; k++) if (Math.abs(value - centers[k]) < Math.abs(value - centers[best])) best = k
  return best
}

/** Rows [rows, width] in groups of like size whose standard deviations are neighbours: the group of each row. */
export function groupRows(weights: ArrayLike<number>, rows: number, groups: number): Uint8Array {
  const width = weights.length / rows
  const spread = Float64Array.from({ length: rows }, (_, i) => {
    let [sum, square] = [0, 0]
    for (let j = i * width; j < (i + 1) * width; j++) {
      sum += weights[j]
      square += weights[j] ** 2
    }
    return square / width - (sum / width) ** 2
  })
  const order = Array.from(spread.keys()).sort((a, b) => spread[a] - spread[b] || a - b)
  const of = new Uint8Array(rows)
  order.forEach((row, place) => (of[row] = Math.floor((place * groups) / rows)))
  return of
}
