import { SteepestError } from '../errors.js'
import { type Example, examplesOf, type Placed } from './examples.js'
import { permutation } from './permutation.js'
import { type RowFormat, RowStore, type StoreOptions } from './row-store.js'

/** What is learned, and what is held back to validate on. */
export type Part = 'train' | 'validation'

/** An example with the file that it comes from and what it is for. */
export interface Parted {
  readonly example: Placed
  readonly path: string
  readonly part: Part
}

/** Which of `count` rows are held back: a share, spread over all; the same seed holds back the same. */
export function heldBack(count: number, share: number, seed: number): (row: number) => boolean {
  const most = Math.max(0, Math.min(count - 1, Math.max(1, Math.round(share * count))))
  const order = permutation(count, seed, 0x7a11)
  const held = new Uint8Array(Math.ceil(count / 8))
  for (let place = 0; place < most; place++) {
    const row = order(place)
    held[row >> 3] |= 1 << (row & 7)
  }
  return (row) => (held[row >> 3] & (1 << (row & 7))) !== 0
}

/** Which files, and how they are divided. */
export interface PartsOptions {
  readonly data: string
  /** Rows to validate on; a share of `data` where not given. */
  readonly validationData?: string
  /** Share that is held back, above 0 and at most 0.5. */
  readonly validation: number
  readonly seed: number
  /** Called now and then with what is being done and the share that is done, 0 to 1. */
  readonly onProgress?: (what: string, done: number) => void
}

/** Rows between two calls of `onProgress`. */
const OFTEN = 1000

/** The examples of one file or two, which are read anew whenever they are asked for, one at a time. */
export interface Parts {
  /** What the first row is. */
  readonly kind: Example['kind']
  readonly data: string
  all(): AsyncGenerator<Parted>
}

/**
 * Reads all examples once, so that the first bad row is told before anything is made of them, and divides them.
 *
 * @param see gets every example
 * @throws SteepestError DATA that names the line of the first bad row, or where a part has no rows
 */
export async function readParts(options: PartsOptions, see: (parted: Parted) => void): Promise<Parts> {
  const { data, validationData, validation, seed, onProgress } = options
  let kind: Example['kind'] | undefined
  let [learned, other] = [0, 0]
  const parted = async function* (held: (row: number) => boolean): AsyncGenerator<Parted> {
    let row = 0
    for await (const example of examplesOf(data))
      yield { example, path: data, part: held(row++) ? 'validation' : 'train' }
    if (validationData === undefined) return
    for await (const example of examplesOf(validationData)) yield { example, path: validationData, part: 'validation' }
  }
  for await (const one of parted(() => false)) {
    kind ??= one.example.kind
    if (one.part === 'train') learned++
    else other++
    see(one)
  }
  const held = validationData === undefined ? heldBack(learned, validation, seed) : () => false
  if (learned < (validationData === undefined ? 2 : 1))
    throw new SteepestError('DATA', {
      who: data,
      rule: 'there must be rows to learn and rows to validate on',
      got: `${learned} ${learned === 1 ? 'row' : 'rows'}`,
      fix: 'Give more rows, or a file of others with --validation-data',
    })
  const changed = () =>
    new SteepestError('DATA', {
      who: data,
      rule: 'the data must not change while they are read',
      fix: 'Begin again when nothing writes to them',
    })
  return {
    kind: kind!,
    data,
    async *all() {
      let left = learned + other
      const all = left
      for await (const one of parted(held)) {
        left--
        if (left % OFTEN === 0) onProgress?.('reading the data', 1 - left / all)
        yield one
      }
      if (left !== 0) throw changed()
    },
  }
}

/** The rows of both parts. */
export type Stores<R extends object> = Readonly<Record<Part, RowStore<R>>> & { close(): Promise<void> }

/**
 * Makes rows of examples and stores them.
 *
 * @param rowsOf the rows of one example; none where nothing of it is left
 * @throws SteepestError DATA where a part has no rows, and what `rowsOf` throws; FILE where they cannot be written
 */
export async function storeRows<R extends object>(
  parts: Parts,
  format: RowFormat<R>,
  sizeOf: (row: R) => number,
  rowsOf: (parted: Parted) => Iterable<R> | Promise<Iterable<R>>,
  options: StoreOptions = {},
): Promise<Stores<R>> {
  const make = () => new RowStore(format, sizeOf, options)
  const stores = { train: make(), validation: make() }
  const close = async () => {
    await stores.train.close()
    await stores.validation.close()
  }
  try {
    let examples = 0
    for await (const one of parts.all()) {
      examples++
      for (const row of await rowsOf(one)) await stores[one.part].push(row)
    }
    for (const part of ['train', 'validation'] as const) {
      await stores[part].end()
      if (stores[part].length === 0)
        throw new SteepestError('DATA', {
          who: parts.data,
          rule: `no row ${part === 'train' ? '' : 'to validate on '}has anything to learn within the context`,
          got: `${examples} rows`,
          fix: 'Give a longer --context',
        })
    }
    return { ...stores, close }
  } catch (error) {
    await close()
    throw error
  }
}
