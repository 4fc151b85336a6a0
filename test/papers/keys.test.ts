import { expect, test } from 'vitest'
import { fields } from '../../papers/support/fields.js'
import { logisticTask } from '../../papers/support/logistic.js'
import { digits, prototypes, sampler } from '../../papers/support/rows.js'

/** Classes in the first 128 rows of each of twelve epochs, in the order of the seed that the rows were drawn from. */
async function classesOf(labels: ArrayLike<number>, seed: number): Promise<number[]> {
  const next = sampler(seed, labels.length, 128)
  const perEpoch = Math.floor(labels.length / 128)
  const counts: number[] = []
  for (let epoch = 0; epoch < 12; epoch++) {
    const rows = await next(epoch * perEpoch + 1)
    counts.push(new Set(Array.from(rows, (row) => labels[row])).size)
  }
  return counts
}

test('the order of the rows of a seed has nothing to do with the rows of this seed', async () => {
  const read = async (labels: { read(): Promise<unknown> }) => (await labels.read()) as Int32Array
  const cases = {
    prototypes: await read((await prototypes(3, { n: 1024, classes: 10, dim: 4 })).y),
    digits: await read((await digits(3, 1024)).y),
    fields: await read((await fields(3, 1024)).y),
    logistic: await read(
      (await logisticTask({ seed: 3, quick: false, pick: (full) => full })).y.cast('int32').reshape([-1]),
    ),
  }
  for (const [name, labels] of Object.entries(cases)) {
    const all = new Set(labels).size
    // Of 128 rows of ten classes, none is missing but with a chance of 1e-5.
    expect(await classesOf(labels, 3), name).toEqual(new Array(12).fill(all))
  }
})
