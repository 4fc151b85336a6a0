import type { Batch } from '../host.js'
import type { Metrics } from '../loop.js'

/** How many of the true and told classes are what, and the measures of GLUE that come from that. */
export class ClassMetrics implements Metrics {
  private readonly counts: Float64Array

  constructor(private readonly classes: number) {
    this.counts = new Float64Array(classes * classes)
  }

  add({ labels }: Batch, logits: Float32Array | Float64Array): void {
    const truth = labels.data
    for (let row = 0; row < truth.length; row++) {
      if (truth[row] < 0) continue
      let told = 0
      for (let c = 1; c < this.classes; c++)
        if (logits[row * this.classes + c] > logits[row * this.classes + told]) told = c
      this.counts[truth[row] * this.classes + told]++
    }
  }

  /** Accuracy, F1 (of class 1 where there are two, else the mean over classes) and Matthews' correlation. */
  result(): Record<string, number> {
    const n = this.classes
    const range = Array.from({ length: n }, (_, i) => i)
    const at = (truth: number, told: number) => this.counts[truth * n + told]
    const total = this.counts.reduce((a, b) => a + b, 0)
    const truths = range.map((t) => range.reduce((s, c) => s + at(t, c), 0))
    const tolds = range.map((c) => range.reduce((s, t) => s + at(t, c), 0))
    const right = range.reduce((s, c) => s + at(c, c), 0)
    const f1 = (c: number) => (truths[c] + tolds[c] === 0 ? 0 : (2 * at(c, c)) / (truths[c] + tolds[c]))
    const dot = (a: number[], b: number[]) => a.reduce((s, x, i) => s + x * b[i], 0)
    // Gorodkin 2004: for two classes this is Matthews' coefficient.
    const spread = Math.sqrt((total ** 2 - dot(tolds, tolds)) * (total ** 2 - dot(truths, truths)))
    return {
      accuracy: total === 0 ? Number.NaN : right / total,
      f1: n === 2 ? f1(1) : range.reduce((s, c) => s + f1(c), 0) / n,
      matthews: spread === 0 ? 0 : (right * total - dot(tolds, truths)) / spread,
    }
  }
}

/** Share of classes that are told rightly, of rows with any number of them. */
export class MultiLabelMetrics implements Metrics {
  private right = 0
  private all = 0
  private hits = 0
  private named = 0

  add({ labels }: Batch, logits: Float32Array | Float64Array): void {
    labels.data.forEach((truth, i) => {
      const told = logits[i] > 0 ? 1 : 0
      this.all++
      if (told === truth) this.right++
      this.hits += told * truth
      this.named += told + truth
    })
  }

  result(): Record<string, number> {
    return { accuracy: this.right / this.all, f1: this.named === 0 ? 0 : (2 * this.hits) / this.named }
  }
}

/** Ranks from 0, equal values sharing the mean of theirs. */
function ranks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b])
  const out = new Array<number>(values.length)
  for (let i = 0; i < order.length; ) {
    let end = i
    while (end < order.length && values[order[end]] === values[order[i]]) end++
    for (let k = i; k < end; k++) out[order[k]] = (i + end - 1) / 2
    i = end
  }
  return out
}

function correlation(a: readonly number[], b: readonly number[]): number {
  const mean = (x: readonly number[]) => x.reduce((s, v) => s + v, 0) / x.length
  const [ma, mb] = [mean(a), mean(b)]
  let [ab, aa, bb] = [0, 0, 0]
  a.forEach((x, i) => {
    ab += (x - ma) * (b[i] - mb)
    aa += (x - ma) ** 2
    bb += (b[i] - mb) ** 2
  })
  return aa === 0 || bb === 0 ? 0 : ab / Math.sqrt(aa * bb)
}

/** Pearson's and Spearman's correlation of numbers that are told. */
export class NumberMetrics implements Metrics {
  private readonly told: number[] = []
  private readonly truth: number[] = []

  add({ labels }: Batch, logits: Float32Array | Float64Array): void {
    this.told.push(...logits)
    this.truth.push(...labels.data)
  }

  result(): Record<string, number> {
    return {
      pearson: correlation(this.told, this.truth),
      spearman: correlation(ranks(this.told), ranks(this.truth)),
    }
  }
}
