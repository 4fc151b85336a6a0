import { Command as Commander, CommanderError, Option } from 'commander'
import { nearest, SteepestError } from '../../errors.js'
import { checkValue, flagOf, type OptionSpec } from '../../train/spec.js'
import type { Command, Input } from './command.js'

/** What the arguments of the process mean: a command to run, or a text to print (help, version). */
export type Parsed = { command: Command; input: Input } | { text: string }

/** The text of a flag as its type, checked. */
function typed(spec: OptionSpec, text: string): string | number | boolean {
  const numeric = spec.type === 'integer' || spec.type === 'number'
  const plain = /^[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)
  return checkValue(spec, numeric && plain ? Number(text.replaceAll('_', '')) : text, flagOf(spec.key))
}

function optionOf(spec: OptionSpec): Option {
  const word = spec.value ?? { integer: 'N', number: 'X', text: 'TEXT', choice: 'NAME', switch: '' }[spec.type]
  const value = spec.bare ? `[${word}]` : `<${word}>`
  const flags = spec.type === 'switch' ? flagOf(spec.key) : `${flagOf(spec.key)} ${value}`
  const choices = spec.type === 'choice' ? `: ${(spec.choices ?? []).join(', ')}` : ''
  const byDefault = spec.default !== undefined && spec.type !== 'switch' ? `default ${spec.default}` : spec.chosen
  const option = new Option(flags, spec.doc + choices + (byDefault ? ` (${byDefault})` : ''))
  option.helpGroup(`${spec.group[0].toUpperCase()}${spec.group.slice(1)}:`)
  if (spec.type !== 'switch') option.argParser((text) => typed(spec, text))
  return option
}

/** An argument error of commander as one sentence that names the near word. */
function asSentence(error: CommanderError, who: string, known: readonly string[]): SteepestError {
  const quoted = /'([^']*)'/.exec(error.message)?.[1] ?? ''
  const see = `See: steepest ${who === 'steepest' ? '' : `${who} `}--help`
  if (error.code === 'commander.unknownOption') {
    const near = nearest(quoted.split('=')[0], known)
    return new SteepestError('OPTION', {
      who,
      rule: `unknown flag ${quoted}`,
      fix: near ? `Did you mean ${near}?` : see,
    })
  }
  if (error.code === 'commander.unknownCommand') {
    const near = nearest(quoted, known)
    return new SteepestError('OPTION', {
      who,
      rule: `unknown command ${quoted}`,
      fix: near ? `Did you mean ${near}?` : see,
    })
  }
  if (error.code === 'commander.optionMissingArgument') {
    return new SteepestError('OPTION', { who, rule: `${quoted.split(' ')[0]} needs a value`, fix: see })
  }
  return new SteepestError('OPTION', { who, rule: error.message.replace(/^error: /, '').replace(/\.$/, ''), fix: see })
}

/**
 * Reads the arguments of the process.
 * @throws SteepestError OPTION for an unknown command or flag, a missing or superfluous argument, a value out of range
 */
export function parse(commands: readonly Command[], version: string, argv: readonly string[]): Parsed {
  let text = ''
  let parsed: Parsed | undefined
  let who = 'steepest'
  let known: readonly string[] = [...commands.map((c) => c.name), '--help', '--version']
  const quiet = (command: Commander) =>
    command
      .exitOverride()
      .showSuggestionAfterError(false)
      .configureOutput({ writeOut: (t) => (text += t), writeErr: () => {}, outputError: () => {} })
  const program = quiet(new Commander('steepest'))
    .description('trains neural networks')
    .version(version)
    .helpCommand(false)
  program.action(() => {
    text = program.helpInformation()
  })
  // With an action of its own commander would take an unknown command for an argument.
  program.argument('[command]').usage('COMMAND [OPTIONS]')
  for (const command of commands) {
    const sub = quiet(new Commander(command.name)).description(command.summary).allowExcessArguments(false)
    for (const { name, doc } of command.args ?? []) sub.argument(name, doc)
    for (const flag of command.flags) sub.addOption(optionOf(flag))
    if (command.notes) sub.addHelpText('after', `\n${command.notes}`)
    sub.action((...given: unknown[]) => {
      const args = given
        .slice(0, command.args?.length ?? 0)
        .flat()
        .filter((a): a is string => a !== undefined)
      parsed = { command, input: { args, flags: sub.opts() } }
    })
    program.addCommand(sub)
  }
  const named = commands.find((c) => c.name === argv[0])
  if (named) {
    who = named.name
    known = [...named.flags.map((f) => flagOf(f.key)), '--help']
  } else if (argv[0] !== undefined && !argv[0].startsWith('-')) {
    throw asSentence(new CommanderError(2, 'commander.unknownCommand', `'${argv[0]}'`), who, known)
  }
  try {
    program.parse([...argv], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode !== 0) throw asSentence(error, who, known)
  }
  return parsed ?? { text }
}
