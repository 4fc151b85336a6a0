import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { configCommand, configSchema } from '../../lib/cli/config.js'
import { type Prepare, trainCommand } from '../../lib/cli/train.js'
import { type TrainOptions, trainOptions } from '../../lib/train/options.js'
import { checkRecord, flagOf, type OptionSpec, rangeOf } from '../../lib/train/spec.js'
import { plan } from '../train/terminal-fake.js'
import { cli, temporaryFolder } from './cli-fake.js'

/** The options that `steepest train` hands on for a command line, or the sentence it ends with. */
async function given(argv: string[], cwd = temporaryFolder()): Promise<TrainOptions | string> {
  let options: TrainOptions | undefined
  const prepare: Prepare = async (o) => {
    options = o
    return {
      plan,
      async *run() {
        yield { type: 'stop', reason: 'done', step: 1, seconds: 1 }
      },
    }
  }
  const { code, err } = await cli([trainCommand(async () => prepare), configCommand], ['train', ...argv], { cwd })
  if (!options) expect(code).toBe(err.includes('config file') || err.includes('JSON') ? 1 : 2)
  return options ?? err
}

describe('flags', () => {
  test('become options of their types', async () => {
    expect(
      await given([
        ...['book.txt', '--steps', '1_000', '--stop-after=20', '--lr', '3e-4', '--dtype', 'bfloat16'],
        ...['--weight-decay', '.1', '--allow-non-finite', '--optimizer', 'lion'],
      ]),
    ).toEqual({
      file: 'book.txt',
      steps: 1000,
      stopAfter: 20,
      lr: 3e-4,
      dtype: 'bfloat16',
      weightDecay: 0.1,
      allowNonFinite: true,
      optimizer: 'lion',
    })
    expect(await given([])).toEqual({})
  })

  test.each([
    [['--stepz', '4'], 'steepest: train: unknown flag --stepz. Did you mean --steps?\n'],
    [['--weightDecay=1'], 'steepest: train: unknown flag --weightDecay=1. Did you mean --weight-decay?\n'],
    [['--qqqqqqqq'], 'steepest: train: unknown flag --qqqqqqqq. See: steepest train --help\n'],
    [['--steps', '0'], 'steepest: --steps: must be a whole number from 1; got 0\n'],
    [['--steps', '1.5'], 'steepest: --steps: must be a whole number from 1; got 1.5\n'],
    [['--steps', 'many'], 'steepest: --steps: must be a whole number from 1; got "many"\n'],
    [
      ['--steps', '99999999999999999999'],
      'steepest: --steps: must be a whole number from 1; got 100000000000000000000\n',
    ],
    [['--steps', '0x10'], 'steepest: --steps: must be a whole number from 1; got "0x10"\n'],
    [['--steps'], 'steepest: train: --steps needs a value. See: steepest train --help\n'],
    [['--lr', '-1'], 'steepest: --lr: must be a number above 0; got -1\n'],
    [['--lr', 'Infinity'], 'steepest: --lr: must be a number above 0; got "Infinity"\n'],
    [['--validation', '0.6'], 'steepest: --validation: must be a number above 0 and up to 0.5; got 0.6\n'],
    [['--vocab', '10'], 'steepest: --vocab: must be a whole number from 257 to 1000000; got 10\n'],
    [['--dtype', 'bfloat'], 'steepest: --dtype: must be float32 or bfloat16; got "bfloat". Did you mean bfloat16?\n'],
    [['--out', ''], 'steepest: --out: must be text; got ""\n'],
    [
      ['a.txt', 'b.txt'],
      "steepest: train: too many arguments for 'train'. Expected 1 argument but got 2. See: steepest train --help\n",
    ],
  ])('%j is one sentence', async (argv, sentence) => {
    expect(await given(argv)).toBe(sentence)
  })

  test('unknown commands name the near one', async () => {
    const { code, err } = await cli([configCommand], ['confg'])
    expect([code, err]).toEqual([2, 'steepest: unknown command confg. Did you mean config?\n'])
  })

  test('help and version come from the list and the package', async () => {
    const commands = [trainCommand(async () => async () => ({ plan, run: async function* () {} })), configCommand]
    const help = await cli(commands, ['train', '--help'])
    expect(help.code).toBe(0)
    for (const option of trainOptions) if (option.key !== 'file') expect(help.out).toContain(flagOf(option.key))
    expect(help.out).toContain('Model:\n')
    expect((await cli(commands, ['--version'])).out).toMatch(/^\d+\.\d+\.\d+/)
    expect((await cli(commands, [])).out).toContain('train')
  })
})

describe('the config file', () => {
  const folderWith = (text: string, name = 'steepest.json') => {
    const folder = temporaryFolder()
    writeFileSync(join(folder, name), text)
    return folder
  }

  test('gives options, and flags win', async () => {
    const folder = folderWith('{ "$schema": "x", "steps": 10, "layers": 2, "file": "a.txt" }')
    expect(await given(['--steps', '20'], folder)).toEqual({ steps: 20, layers: 2, file: 'a.txt' })
    expect(await given(['b.txt'], folder)).toMatchObject({ file: 'b.txt' })
    const named = folderWith('{ "steps": 7 }', 'other.json')
    expect(await given(['--config', 'other.json'], named)).toEqual({ steps: 7 })
  })

  test.each([
    ['{ "layres": 2 }', 'steepest: steepest.json: unknown key `layres`. Did you mean `layers`?\n'],
    ['{ "layers": "2" }', 'steepest: steepest.json: layers: must be a whole number from 1 to 1000; got "2"\n'],
    ['{ "layers": null }', 'steepest: steepest.json: layers: must be a whole number from 1 to 1000; got null\n'],
    ['{ "allowNonFinite": 1 }', 'steepest: steepest.json: allowNonFinite: must be true or false; got 1\n'],
    ['[]', 'steepest: steepest.json: must hold a JSON object with options as keys\n'],
  ])('%s is one sentence', async (text, sentence) => {
    const { err } = await cli([trainCommand(async () => async () => Promise.reject(new Error('ran')))], ['train'], {
      cwd: folderWith(text),
    })
    expect(err).toBe(sentence)
  })

  test('broken JSON, a missing file and a folder are told', async () => {
    expect(await given([], folderWith('{ "steps": }'))).toMatch(/^steepest: steepest.json: must be JSON: .*\n$/)
    expect(await given(['--config', 'no.json'])).toBe('steepest: no.json: no such config file\n')
    const folder = temporaryFolder()
    mkdirSync(join(folder, 'steepest.json'))
    expect(await given([], folder)).toBe('steepest: steepest.json: the config file cannot be read (EISDIR)\n')
  })
})

describe('the list of options', () => {
  test('has every key once, with a doc and either a default or a word on how it is chosen', () => {
    const specs: readonly OptionSpec[] = trainOptions
    expect(new Set(specs.map((o) => o.key)).size).toBe(specs.length)
    for (const option of specs) {
      expect(option.doc).not.toMatch(/\.$|^[A-Z]/)
      expect(option.key).toMatch(/^[a-z][a-zA-Z]*$/)
      if (option.default !== undefined) checkRecord('defaults', specs, { [option.key]: option.default })
    }
  })

  test('the schema has every key with its range', async () => {
    const { code, out } = await cli([configCommand], ['config', '--schema'])
    expect(code).toBe(0)
    const schema = JSON.parse(out) as { properties: Record<string, object>; additionalProperties: boolean }
    expect(schema).toEqual(configSchema())
    expect(Object.keys(schema.properties)).toEqual(['$schema', ...trainOptions.map((o) => o.key)])
    expect(schema.additionalProperties).toBe(false)
    expect(schema.properties.lr).toMatchObject({ type: 'number', exclusiveMinimum: 0 })
    expect(schema.properties.dtype).toMatchObject({ enum: ['float32', 'bfloat16'], default: 'float32' })
  })

  test('config prints every key', async () => {
    const { out } = await cli([configCommand], ['config'])
    for (const option of trainOptions) expect(out).toContain(`${option.doc}: ${rangeOf(option)}`)
  })
})
