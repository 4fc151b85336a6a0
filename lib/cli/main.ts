#!/usr/bin/env node
import { commands } from './commands.js'
import { run } from './run.js'

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
