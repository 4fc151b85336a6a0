import { nearest, SteepestError } from '../errors.js'

/** One option of a command: flag, key of the config file and property of the API are all made from it. */
export interface OptionSpec {
  /** The property's name, camelCase; the flag is the same name with hyphens. */
  key: string
  type: 'integer' | 'number' | 'text' | 'choice' | 'switch'
  /** One line, without a full stop. */
  doc: string
  group: string
  /** Smallest and largest value that is taken. */
  min?: number
  max?: number
  /** The value must be greater than this one. */
  above?: number
  choices?: readonly string[]
  /** What holds when the user says nothing: a value, or how it is chosen. */
  default?: string | number | boolean
  chosen?: string
  /** The word for the value in `--help`; default by type. */
  value?: string
  /** As a flag it may stand without a value, and is `true` then. */
  bare?: boolean
}

type ValueOf<S extends OptionSpec> = S['type'] extends 'integer' | 'number'
  ? number
  : S['type'] extends 'switch'
    ? boolean
    : S['type'] extends 'choice'
      ? S['choices'] extends readonly (infer C)[]
        ? C
        : string
      : string

/** The options object that a list of specs describes; every key may be left out. */
export type OptionsOf<L extends readonly OptionSpec[]> = { [S in L[number] as S['key']]?: ValueOf<S> }

/** `weightDecay` as a flag: `--weight-decay`. */
export function flagOf(key: string): string {
  return `--${key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`
}

/** The values that an option takes, in words: `a whole number from 1`, `sgd, adam or lion`. */
export function rangeOf(spec: OptionSpec): string {
  if (spec.type === 'switch') return 'true or false'
  if (spec.type === 'choice') return (spec.choices ?? []).join(', ').replace(/, ([^,]*)$/, ' or $1')
  if (spec.type === 'text') return 'text'
  const kind = spec.type === 'integer' ? 'a whole number' : 'a number'
  const low = spec.above !== undefined ? ` above ${spec.above}` : spec.min !== undefined ? ` from ${spec.min}` : ''
  return kind + low + (spec.max === undefined ? '' : `${spec.above !== undefined ? ' and up' : ''} to ${spec.max}`)
}

/**
 * The value of an option, checked against its type and range.
 * @param who what the user wrote it as: a flag, or a file and key
 * @throws SteepestError OPTION
 */
export function checkValue(spec: OptionSpec, value: unknown, who: string): string | number | boolean {
  const wrong = (fix = '') => {
    const got = typeof value === 'string' ? `"${value}"` : String(JSON.stringify(value))
    return new SteepestError('OPTION', { who, rule: `must be ${rangeOf(spec)}`, got, fix })
  }
  switch (spec.type) {
    case 'switch':
      if (typeof value !== 'boolean') throw wrong()
      return value
    case 'text':
      if (typeof value !== 'string' || value === '') throw wrong()
      return value
    case 'choice': {
      if (typeof value === 'string' && spec.choices?.includes(value)) return value
      const near = typeof value === 'string' ? nearest(value, spec.choices ?? []) : undefined
      throw wrong(near ? `Did you mean ${near}?` : '')
    }
    default: {
      if (typeof value !== 'number' || !Number.isFinite(value)) throw wrong()
      if (spec.type === 'integer' && !Number.isSafeInteger(value)) throw wrong()
      if (spec.min !== undefined && value < spec.min) throw wrong()
      if (spec.max !== undefined && value > spec.max) throw wrong()
      if (spec.above !== undefined && value <= spec.above) throw wrong()
      return value
    }
  }
}

/**
 * An options object from outside, with every key and value checked.
 * @param who whose options they are: `train`, or a file
 * @throws SteepestError OPTION for an unknown key (naming the near one) and for a value out of range
 */
export function checkRecord<L extends readonly OptionSpec[]>(who: string, specs: L, record: object): OptionsOf<L> {
  const byKey = new Map(specs.map((s) => [s.key, s]))
  for (const [key, value] of Object.entries(record)) {
    const spec = byKey.get(key)
    if (!spec) {
      const near = nearest(key, byKey.keys())
      const fix = near ? `Did you mean \`${near}\`?` : `Known keys: ${[...byKey.keys()].join(', ')}`
      throw new SteepestError('OPTION', { who, rule: `unknown key \`${key}\``, fix })
    }
    if (value !== undefined) checkValue(spec, value, `${who}: ${key}`)
  }
  return record as OptionsOf<L>
}

/** JSON schema (2020-12) of a config file with these keys. */
export function schemaOf(title: string, specs: readonly OptionSpec[]): object {
  const properties: Record<string, object> = { $schema: { type: 'string' } }
  for (const spec of specs) {
    const type = { integer: 'integer', number: 'number', switch: 'boolean', text: 'string', choice: 'string' }[
      spec.type
    ]
    properties[spec.key] = {
      type,
      description: spec.doc + (spec.chosen ? ` (default: ${spec.chosen})` : ''),
      ...(spec.choices ? { enum: spec.choices } : {}),
      ...(spec.type === 'text' ? { minLength: 1 } : {}),
      ...(spec.min !== undefined ? { minimum: spec.min } : {}),
      ...(spec.max !== undefined ? { maximum: spec.max } : {}),
      ...(spec.above !== undefined ? { exclusiveMinimum: spec.above } : {}),
      ...(spec.default !== undefined ? { default: spec.default } : {}),
    }
  }
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title,
    type: 'object',
    properties,
    additionalProperties: false,
  }
}
