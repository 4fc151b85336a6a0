import { open, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { latestCheckpoint } from '../../lib/io/checkpoint.js'
import { begin, type Ended, steepest, workplace } from './train-child.js'

/** The error that a run told, as the only one and the last thing that it said. */
function errorOf({ out, err, code }: Ended): string {
  expect([code === 1 || code === 2, err]).toEqual([true, ''])
  const events = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: string; message: string })
  expect(events.filter((e) => e.type === 'error')).toEqual(events.slice(-1))
  return events.at(-1)!.message
}

/** A run that has stopped after step 6, with checkpoints of steps 3 and 6. */
async function stopped(): Promise<string> {
  const cwd = await workplace()
  const { code, err } = await steepest([...begin('run'), '--stop-after', '6'], cwd)
  expect([code, err]).toEqual([0, ''])
  return cwd
}

test('a file size limit that a checkpoint goes beyond: one sentence, and the run goes on from the one before', async () => {
  const cwd = await stopped()
  const message = errorOf(await steepest(['--resume', 'run'], cwd, { limit: 40 }))
  expect(message).toMatch(
    /checkpoint-9\/optimizer\.safetensors: cannot be written: the file would be larger than .* \(EFBIG\)\. Raise the limit/,
  )
  expect(await readdir(join(cwd, 'run'))).not.toContain('checkpoint-9')
  expect(await latestCheckpoint(join(cwd, 'run'))).toMatchObject({ step: 6, skipped: [] })
  expect((await steepest(['--resume', 'run'], cwd)).code).toBe(0)
})

test('a log that cannot grow ends the run with one sentence', async () => {
  const cwd = await stopped()
  const message = errorOf(await steepest(['--resume', 'run'], cwd, { limit: 1 }))
  expect(message).toMatch(/run\.jsonl: cannot be written: the file would be larger/)
  expect(await latestCheckpoint(join(cwd, 'run'))).toMatchObject({ step: 6, skipped: [] })
  expect((await steepest(['--resume', 'run'], cwd)).code).toBe(0)
})

test('a corrupt checkpoint is passed over, and said; named itself, it is refused', async () => {
  const cwd = await stopped()
  const file = await open(join(cwd, 'run/checkpoint-6/model.safetensors'), 'r+')
  await file.write(Buffer.of(1, 2, 3), 0, 3, 5000)
  await file.close()
  expect(errorOf(await steepest(['--resume', 'run/checkpoint-6'], cwd))).toMatch(
    /model\.safetensors: the file is corrupt: its checksum does not fit\. Resume from another checkpoint/,
  )
  const { code, out } = await steepest(['--resume', 'run'], cwd)
  expect(code).toBe(0)
  const start = JSON.parse(out.slice(0, out.indexOf('\n')))
  expect(start).toMatchObject({ type: 'start', fromStep: 3 })
  expect(start.chosen.resume).toMatch(
    /^checkpoint-3, as .*checkpoint-6\/model\.safetensors\] the file is corrupt: its checksum does not fit$/,
  )
})

test('bad input is one sentence each', async () => {
  const cwd = await stopped()
  const tell = async (...args: string[]) => errorOf(await steepest(args, cwd))
  await writeFile(join(cwd, 'empty.txt'), '')
  await writeFile(join(cwd, 'short.txt'), 'too short')
  await writeFile(join(cwd, 'other.txt'), 'Another text, long enough for a context of sixteen tokens. '.repeat(300))
  expect(await tell('nowhere.txt')).toMatch(
    /nowhere\.txt.*: cannot be read: there is no such file or folder \(ENOENT\)/,
  )
  expect(await tell('empty.txt')).toMatch(/empty\.txt.*: the text must not be empty; got 0 bytes/)
  expect(await tell('short.txt', '--context', '16')).toMatch(
    /short\.txt.*: the text must be longer than the context, once for training and once for validation; got 9 tokens for a context of 16/,
  )
  expect(await tell('book.txt', '--heads', '3', '--width', '16')).toMatch(
    /heads: the heads must divide the width; got 3 heads for width 16/,
  )
  expect(await tell('--resume', 'nowhere')).toMatch(/nowhere.*: there is no such run folder or checkpoint/)
  expect(await tell('other.txt', '--resume', 'run')).toMatch(
    /other\.txt.* the run was begun on another text, tokenizer or split/,
  )
  expect(await tell('--resume', 'run', '--width', '32')).toMatch(/another model/)
  expect(await tell('--resume', 'run', '--optimizer', 'lion')).toMatch(
    /the checkpoint must be of the same optimizer; got adamw for lion/,
  )
  expect(await tell('--resume', 'run', '--seed', '8')).toMatch(/the seed that it began with; got 8 for 7/)
  expect(await latestCheckpoint(join(cwd, 'run'))).toMatchObject({ step: 6, skipped: [] })
})
