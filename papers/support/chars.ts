import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type models, random, type Tensor, tensor } from 'steepest'

/** Characters are the bytes below this; others are a question mark. */
export const VOCABULARY = 128

/** English prose that comes with the package: the texts of the licences of what it is built on, some 100,000 characters. */
function licences(): Uint8Array {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'licenses'))) folder = dirname(folder)
  const texts = readdirSync(join(folder, 'licenses'))
    .sort()
    .map((f) => readFileSync(join(folder, 'licenses', f)))
  return Uint8Array.from(Buffer.concat(texts), (byte) => (byte < VOCABULARY ? byte : 63))
}

/** Batches of characters to train on, and others to test on. */
export interface CharText {
  /** Windows of the first nine tenths, from random places. */
  batch(step: number): models.TokenBatch
  test: models.TokenBatch
}

/** Text of characters in windows of `context`; the seed decides where training windows begin. */
export async function charText(
  seed: number,
  options: { batch: number; context: number; steps: number },
): Promise<CharText> {
  const { batch, context, steps } = options
  const text = licences()
  const cut = Math.floor(text.length * 0.9)
  const starts = await random.integers(random.key(seed), [steps, batch], 0, cut - context - 1).read()
  const windows = (from: readonly number[]): models.TokenBatch => {
    const rows = (shift: number): Tensor =>
      tensor(
        Int32Array.from(
          { length: from.length * context },
          (_, i) => text[from[Math.floor(i / context)] + (i % context) + shift],
        ),
        {
          shape: [from.length, context],
        },
      )
    return { inputIds: rows(0), targets: rows(1) }
  }
  const count = Math.min(128, Math.floor((text.length - cut - 1) / context))
  const test = windows(Array.from({ length: count }, (_, i) => cut + i * context))
  return { batch: (step) => windows(Array.from(starts.slice((step - 1) * batch, step * batch), Number)), test }
}
