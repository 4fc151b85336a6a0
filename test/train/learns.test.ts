import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openText, unigramEntropy } from '../../lib/data/index.js'
import { prepareTraining } from '../../lib/train/gpt/prepare.js'

test('the text of `npm start` is learned: after a few seconds the validation loss is at most 0.6 of the unigram entropy', async () => {
  const cwd = mkdtempSync(join(tmpdir(), 'steepest-learns-'))
  onTestFinished(() => rmSync(cwd, { recursive: true, force: true }))
  const steps = 150
  const sizes = { layers: 2, width: 96, heads: 4, context: 64, batch: 16 }
  const prepared = await prepareTraining(
    { ...sizes, steps, evalEvery: steps, sampleEvery: steps, saveEvery: steps, out: 'run' },
    { cwd },
  )
  let loss = Number.NaN
  let sample = ''
  for await (const event of prepared.run()) {
    if (event.type === 'eval') loss = event.loss
    if (event.type === 'sample') sample = event.text
  }
  const entropy = unigramEntropy((await openText()).tokens)
  expect(loss).toBeLessThan(0.6 * entropy)
  // What it writes are words of the text, not noise.
  expect(sample).toMatch(/interface|readonly|MDN|\*\*|: (string|number)/)
}, 120_000)
