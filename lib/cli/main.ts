#!/usr/bin/env node
import { buildCommand } from './build.js'
import { configCommand } from './config.js'
import { doctorCommand } from './doctor.js'
import { estimateCommand } from './estimate.js'
import { allCheckers } from './fixtures/checkers.js'
import { fixturesCommand } from './fixtures.js'
import { generateCommand } from './generate.js'
import { run } from './run.js'
import { trainCommand } from './train.js'

// The modules behind a command are loaded when it runs: help and errors need no native part.
const prepare = async () => (await import('../train/gpt/prepare.js')).prepareTraining
const commands = [
  trainCommand(prepare),
  generateCommand(async () => (await import('../train/gpt/generate.js')).generateText),
  estimateCommand(prepare),
  fixturesCommand(allCheckers),
  doctorCommand(),
  configCommand,
  buildCommand,
]

// `steepest … | head`: a reader that has gone away is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  process.stderr.write(`steepest: the output cannot be written: ${error.message}\n`)
  process.exit(1)
})
process.exitCode = await run(process.argv.slice(2), commands, {
  out: process.stdout,
  err: process.stderr,
  env: process.env,
  cwd: process.cwd(),
})
