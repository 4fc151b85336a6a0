import { argmax } from '../../ops/reduce.js'
import type { Tensor } from '../../tensor/tensor.js'
import type { Batch } from '../host.js'
import type { Metrics } from '../loop.js'

/** The number of the likeliest class of each place, so that not all logits leave native memory. */
const likeliest = (logits: Tensor): Tensor => argmax(logits, { axis: -1 })

/** Share of the tokens that are told rightly; with `rows`, that of the rows of which every token is. */
export class TokenMetrics implements Metrics {
  readonly tell = likeliest
  private right = 0
  private all = 0
  private whole = 0
  private rows = 0

  /** @param exact tell of whole rows too: as every token is told after the right ones, this is the share that greedy decoding gets exactly */
  constructor(private readonly exact = false) {}

  add({ labels }: Batch, told: Float32Array | Float64Array): void {
    const [count, length] = labels.shape
    for (let row = 0; row < count; row++) {
      let wrong = 0
      for (let i = row * length; i < (row + 1) * length; i++) {
        if (labels.data[i] < 0) continue
        this.all++
        if (labels.data[i] === told[i]) this.right++
        else wrong++
      }
      this.rows++
      if (wrong === 0) this.whole++
    }
  }

  result(): Record<string, number> {
    return { accuracy: this.right / this.all, ...(this.exact ? { exactMatch: this.whole / this.rows } : {}) }
  }
}

/** Begin, end and kind of what the tags of a sentence name; `B-` begins one, `I-` goes on with one of its kind or begins one. */
export function entities(tags: readonly string[]): string[] {
  const out: string[] = []
  let open: { kind: string; from: number } | undefined
  const close = (to: number) => {
    if (open) out.push(`${open.from}-${to} ${open.kind}`)
    open = undefined
  }
  tags.forEach((tag, i) => {
    const [, how, kind] = /^([BI])-(.*)$/.exec(tag) ?? []
    if (how === 'I' && open?.kind === kind) return
    close(i)
    if (how) open = { kind, from: i }
  })
  close(tags.length)
  return out
}

/**
 * Accuracy of the tags of words, and where they are of the kind B-/I- precision, recall and F1 of whole entities, as CoNLL counts them (Tjong
 * Kim Sang and De Meulder 2003); else the mean F1 of the tags.
 */
export class TagMetrics implements Metrics {
  readonly tell = likeliest
  private right = 0
  private all = 0
  private found = 0
  private wanted = 0
  private hits = 0
  private readonly counts: { true: number; told: number; hits: number }[]
  private readonly named: boolean

  constructor(private readonly names: readonly string[]) {
    this.named = names.some((name) => /^[BI]-/.test(name))
    this.counts = names.map(() => ({ true: 0, told: 0, hits: 0 }))
  }

  add({ labels }: Batch, told: Float32Array | Float64Array): void {
    const [count, length] = labels.shape
    for (let row = 0; row < count; row++) {
      const [is, says]: [string[], string[]] = [[], []]
      for (let i = row * length; i < (row + 1) * length; i++) {
        const [truth, tag] = [labels.data[i], told[i]]
        if (truth < 0) continue
        is.push(this.names[truth])
        says.push(this.names[tag])
        this.all++
        this.right += Number(truth === tag)
        this.counts[truth].true++
        this.counts[tag].told++
        this.counts[tag].hits += Number(truth === tag)
      }
      const [wanted, found] = [new Set(entities(is)), entities(says)]
      this.wanted += wanted.size
      this.found += found.length
      this.hits += found.filter((e) => wanted.has(e)).length
    }
  }

  result(): Record<string, number> {
    const accuracy = this.right / this.all
    if (!this.named) {
      const f1 = this.counts.map(({ true: t, told, hits }) => (t + told === 0 ? 0 : (2 * hits) / (t + told)))
      return { accuracy, f1: f1.reduce((a, b) => a + b, 0) / f1.length }
    }
    const share = (of: number) => (of === 0 ? 0 : this.hits / of)
    const f1 = this.found + this.wanted === 0 ? 0 : (2 * this.hits) / (this.found + this.wanted)
    return { accuracy, precision: share(this.found), recall: share(this.wanted), f1 }
  }
}
