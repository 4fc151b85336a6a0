import { type Batcher, type Filled, labelled, lengthOf } from './batchers.js'
import { philox } from './philox.js'

/** A row of text as tokens, with what the tokenizer puts around it. */
export interface MaskedRow {
  readonly ids: Int32Array
  /** Tokens at the beginning and at the end that are never masked. */
  readonly before: number
  readonly after: number
  readonly line: number
}

/** What tokens are hidden behind. */
export interface MaskOptions {
  readonly maskId: number
  readonly padId: number
  readonly vocabSize: number
  readonly seed: number
}

/** Share of the tokens that are to be told (Devlin et al. 2018, section 3.1). */
const SHARE = 0.15
const MASKED = 0.8
const CHANGED = 0.9
/** Stands for the epoch where rows are evaluated: the same places every time. */
const EVALUATION = 0xffffffff

const unit = (bits: number): number => bits / 2 ** 32

/**
 * Rows filled up to the longest of them, with 15 % of their tokens to be told: of these 80 % are hidden behind the mask, 10 % are another
 * token, 10 % stay. At least one token of a row is told. What is chosen depends on seed, epoch, row and place only.
 */
export function masking(batch: number, { maskId, padId, vocabSize, seed }: MaskOptions): Batcher<MaskedRow> {
  return {
    take: () => batch,
    batch(rows, numbers, epoch = EVALUATION): Filled {
      const length = lengthOf(rows.map((r) => r.ids.length))
      const count = rows.length
      const inputIds = new Int32Array(count * length).fill(padId)
      const attentionMask = new Int32Array(count * length)
      const labels = new Int32Array(count * length).fill(-100)
      rows.forEach(({ ids, before, after }, n) => {
        inputIds.set(ids, n * length)
        attentionMask.fill(1, n * length, n * length + ids.length)
        const draws: [place: number, chosen: number, how: number, other: number][] = []
        for (let i = before; i < ids.length - after; i++) {
          const [chosen, how, other] = philox([i, numbers[n], epoch, 0], [seed, 0x6d61736b])
          draws.push([i, unit(chosen), unit(how), unit(other)])
        }
        const least = draws.reduce((min, [, chosen]) => Math.min(min, chosen), 1)
        for (const [i, chosen, how, other] of draws) {
          if (chosen >= SHARE && chosen > least) continue
          const at = n * length + i
          labels[at] = ids[i]
          if (how < MASKED) inputIds[at] = maskId
          else if (how < CHANGED) inputIds[at] = Math.floor(other * vocabSize)
        }
      })
      return labelled({ inputIds, attentionMask, labels }, [count, length], numbers)
    },
  }
}
