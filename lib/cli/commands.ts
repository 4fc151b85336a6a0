import { buildCommand } from './build.js'
import { configCommand } from './config.js'
import { doctorCommand } from './doctor.js'
import { estimateCommand } from './estimate.js'
import { allCheckers } from './fixtures/checkers.js'
import { exportCommand } from './export.js'
import { finetuneCommand } from './finetune.js'
import { fixturesCommand } from './fixtures.js'
import { generateCommand } from './generate.js'
import { paperCommand } from './paper.js'
import type { Command } from './support/command.js'
import { trainCommand } from './train.js'

const prepare = async () => (await import('../train/gpt/prepare.js')).prepareTraining

/** Every command. The modules behind one are loaded when it runs: help and errors need no native part. */
export const commands: readonly Command[] = [
  trainCommand(prepare),
  finetuneCommand(async () => (await import('../train/finetune/prepare.js')).prepareFinetune),
  generateCommand(async () => (await import('../train/generate/folder.js')).generateText),
  exportCommand(async () => (await import('../models/export.js')).exportModel),
  estimateCommand(prepare),
  doctorCommand(undefined, async () => (await import('../train/measure.js')).measureMachine()),
  configCommand,
  paperCommand((name) => import(new URL(`../papers/${name}.js`, import.meta.url).href)),
  fixturesCommand(allCheckers),
  buildCommand,
]
