import type { Batcher, Filled } from './row-loader.js'
import type { TokenRow } from './token-rows.js'

export type { Batcher, Filled }

/** @internal */
export const ints = (data: Int32Array, shape: readonly number[] = [data.length]) =>
  ({ data, shape, dtype: 'int32' }) as const
const floats = (data: Float32Array, shape: readonly number[]) => ({ data, shape, dtype: 'float32' }) as const

/** @internal Says to the trainer that the model divides by the weight of the whole step. */
export const NORMALIZED = { data: Uint8Array.of(1), shape: [1], dtype: 'uint8' } as const

/** Rows of tokens [rows, length] with a label for each, which counts where it is not negative. */
export const labelled = (
  { inputIds, attentionMask, labels }: Record<'inputIds' | 'attentionMask' | 'labels', Int32Array>,
  shape: readonly number[],
  numbers: readonly number[],
): Filled => ({
  batch: {
    inputIds: ints(inputIds, shape),
    attentionMask: ints(attentionMask, shape),
    labels: ints(labels, shape),
    ids: ints(Int32Array.from(numbers)),
    normalized: NORMALIZED,
  },
  weight: labels.reduce((n, label) => n + Number(label >= 0), 0),
})

/** Rows are filled up to a multiple of this, so that few programs serve all lengths. */
const LENGTHS = 32

/** @internal The length that rows of these lengths are filled up to. */
export const lengthOf = (lengths: readonly number[]): number =>
  LENGTHS * Math.ceil(lengths.reduce((n, l) => Math.max(n, l), 1) / LENGTHS)

/**
 * Packs documents into `batch` rows of `context` tokens, one after the other: several share a row, and none sees another (`segments`,
 * `positions`). A batch is full when the next document fits into no row.
 */
export function packing(batch: number, context: number, padId = 0): Batcher<TokenRow> {
  /** Where each document goes: its row and place; the first that fits nowhere ends the batch. */
  const places = (sizes: Iterable<number>): [row: number, at: number][] => {
    const filled = new Array<number>(batch).fill(0)
    const out: [number, number][] = []
    for (const size of sizes) {
      const row = filled.findIndex((n) => n + size <= context)
      if (row < 0) break
      out.push([row, filled[row]])
      filled[row] += size
    }
    return out
  }
  const size = ({ ids }: TokenRow) => ids.length
  return {
    size,
    take: (sizes) => Math.max(1, places(sizes).length),
    batch(rows, numbers) {
      const all = batch * context
      const inputIds = new Int32Array(all).fill(padId)
      const targets = new Int32Array(all).fill(-100)
      const segments = new Int32Array(all).fill(-1)
      const positions = new Int32Array(all)
      const ids = new Int32Array(batch)
      let weight = 0
      places(rows.map(size)).forEach(([row, at], n) => {
        const { ids: tokens, learned } = rows[n]
        const begin = row * context + at
        if (at === 0) ids[row] = numbers[n]
        for (let i = 0; i < tokens.length; i++) {
          inputIds[begin + i] = tokens[i]
          segments[begin + i] = n
          positions[begin + i] = i
          if (i + 1 < tokens.length && learned[i + 1]) {
            targets[begin + i] = tokens[i + 1]
            weight++
          }
        }
      })
      const grid = (data: Int32Array) => ints(data, [batch, context])
      return {
        batch: {
          inputIds: grid(inputIds),
          targets: grid(targets),
          segments: grid(segments),
          positions: grid(positions),
          ids: ints(ids),
          normalized: NORMALIZED,
        },
        weight,
      }
    },
  }
}

/** A text with its class, as tokens. */
export interface ClassRow {
  readonly ids: Int32Array
  /** 0 for the first text, 1 for the second. */
  readonly types: Int32Array
  /** The class, the number, or one 0 or 1 per class. */
  readonly label: readonly number[]
  readonly line: number
}

/** `batch` rows at a time, filled up to the longest of them; rows that are missing at the end count for nothing. */
export function padding(batch: number, padId: number, float: boolean): Batcher<ClassRow> {
  return {
    take: () => batch,
    batch(rows, numbers): Filled {
      const length = lengthOf(rows.map((r) => r.ids.length))
      const count = rows.length
      const inputIds = new Int32Array(count * length).fill(padId)
      const attentionMask = new Int32Array(count * length)
      const tokenTypeIds = new Int32Array(count * length)
      rows.forEach(({ ids, types }, n) => {
        inputIds.set(ids, n * length)
        tokenTypeIds.set(types, n * length)
        attentionMask.fill(1, n * length, n * length + ids.length)
      })
      const width = rows[0].label.length
      const all = rows.flatMap((r) => r.label)
      const shape = width === 1 ? [count] : [count, width]
      const grid = (data: Int32Array) => ints(data, [count, length])
      return {
        batch: {
          inputIds: grid(inputIds),
          attentionMask: grid(attentionMask),
          tokenTypeIds: grid(tokenTypeIds),
          labels: float ? floats(Float32Array.from(all), shape) : ints(Int32Array.from(all), shape),
          ids: ints(Int32Array.from(numbers)),
          normalized: NORMALIZED,
        },
        weight: count,
      }
    },
  }
}

/** A source and its target, as tokens. */
export interface PairRow {
  readonly source: Int32Array
  readonly target: Int32Array
  readonly line: number
}

/** `batch` pairs at a time, sources and targets filled up to the longest of each. */
export function pairing(batch: number, padId: number): Batcher<PairRow> {
  return {
    take: () => batch,
    batch(rows, numbers) {
      const count = rows.length
      const [sources, targets] = (['source', 'target'] as const).map((part) =>
        lengthOf(rows.map((r) => r[part].length)),
      )
      const inputIds = new Int32Array(count * sources).fill(padId)
      const attentionMask = new Int32Array(count * sources)
      const labels = new Int32Array(count * targets).fill(-100)
      rows.forEach(({ source, target }, n) => {
        inputIds.set(source, n * sources)
        attentionMask.fill(1, n * sources, n * sources + source.length)
        labels.set(target, n * targets)
      })
      return {
        batch: {
          inputIds: ints(inputIds, [count, sources]),
          attentionMask: ints(attentionMask, [count, sources]),
          labels: ints(labels, [count, targets]),
          ids: ints(Int32Array.from(numbers)),
          normalized: NORMALIZED,
        },
        weight: rows.reduce((n, r) => n + r.target.length, 0),
      }
    },
  }
}

/** Words as tokens, with the number of the tag of each word at its first token. */
export interface TagRow {
  readonly ids: Int32Array
  /** −100 where a token is not the first of a word. */
  readonly tags: Int32Array
  readonly line: number
}

/** `batch` rows at a time, filled up to the longest of them, with a label for every word. */
export function tagging(batch: number, padId: number): Batcher<TagRow> {
  return {
    take: () => batch,
    batch(rows, numbers): Filled {
      const length = lengthOf(rows.map((r) => r.ids.length))
      const shape = [rows.length, length]
      const inputIds = new Int32Array(rows.length * length).fill(padId)
      const attentionMask = new Int32Array(rows.length * length)
      const labels = new Int32Array(rows.length * length).fill(-100)
      rows.forEach(({ ids, tags }, n) => {
        inputIds.set(ids, n * length)
        labels.set(tags, n * length)
        attentionMask.fill(1, n * length, n * length + ids.length)
      })
      return labelled({ inputIds, attentionMask, labels }, shape, numbers)
    },
  }
}
