import { trainOptions } from '../train/options.js'
import { flagOf, rangeOf, schemaOf } from '../train/spec.js'
import type { Command } from './support/command.js'
import { CONFIG_FILE } from './support/config-file.js'

/** The JSON schema of `steepest.json`. */
export const configSchema = (): object => schemaOf(`Options of steepest train (${CONFIG_FILE})`, trainOptions)

/** `steepest config`. */
export const configCommand: Command = {
  name: 'config',
  summary: `the keys of ${CONFIG_FILE}, or its JSON schema`,
  flags: [{ key: 'schema', type: 'switch', group: 'output', doc: 'print the JSON schema', default: false }],
  async run({ flags }, { out }) {
    if (flags.schema) {
      out.write(`${JSON.stringify(configSchema(), null, 2)}\n`)
      return 0
    }
    const widest = Math.max(...trainOptions.map((o) => o.key.length))
    for (const option of trainOptions) {
      const byDefault =
        'default' in option ? `default ${option.default}` : 'chosen' in option ? option.chosen : 'not set'
      const flag = option.key === 'file' ? '' : `, also ${flagOf(option.key)}`
      out.write(`${option.key.padEnd(widest)}  ${option.doc}: ${rangeOf(option)} (${byDefault}${flag})\n`)
    }
    return 0
  },
}
