import { SteepestError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import type { ClassTask } from './heads.js'

/** What `config.json` says. */
export type ConfigJson = Readonly<Record<string, unknown>>

const show = (value: unknown): string => JSON.stringify(value) ?? 'nothing'

function fail(who: string, key: string, rule: string, value: unknown): never {
  throw new SteepestError('FORMAT', { who, rule: `\`${key}\` must be ${rule}`, got: show(value) })
}

/** Reads the keys of a `config.json`, each with an error that says what must stand there. */
export class ConfigReader {
  constructor(
    readonly who: string,
    readonly json: ConfigJson,
  ) {}

  private at(key: string): unknown {
    return this.json[key] ?? undefined
  }

  has(key: string): boolean {
    return this.at(key) !== undefined
  }

  /** A whole number of 1 or more. */
  count(key: string, fallback?: number): number {
    const value = this.at(key) ?? fallback
    return Number.isSafeInteger(value) && Number(value) >= 1
      ? Number(value)
      : fail(this.who, key, 'a whole number of 1 or more', value)
  }

  /** A number above 0. */
  positive(key: string, fallback?: number): number {
    const value = this.at(key) ?? fallback
    return typeof value === 'number' && value > 0 && value < Infinity
      ? value
      : fail(this.who, key, 'a number above 0', value)
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.at(key) ?? fallback
    return typeof value === 'boolean' ? value : fail(this.who, key, 'true or false', value)
  }

  text(key: string, fallback: string): string {
    const value = this.at(key) ?? fallback
    return typeof value === 'string' ? value : fail(this.who, key, 'a string', value)
  }

  /** One of the values that the model here computes. */
  only(key: string, values: readonly unknown[]): void {
    const value = this.at(key)
    if (value !== undefined && !values.includes(value))
      fail(this.who, key, `${values.map(show).join(' or ')} (steepest has no other)`, value)
  }
}

/** How a model is loaded. */
export interface LoadOptions {
  /** Numbers that the model computes with; where not given, bfloat16 and float64 of a file stay, and all others become float32. */
  readonly dtype?: DType
  /** Share of activations that is dropped in training; 0 where not given, whatever the folder says. */
  readonly dropout?: number
  /** What is to come out, whatever the folder says; weights of it that the folder has not begin anew. */
  readonly head?: Head
}

/** A head that classifies rows, or every token of them. */
export interface Head {
  readonly task: 'sequence' | 'token'
  readonly classes: number
  readonly problem: ClassTask
  /** Names of the classes. */
  readonly labels?: readonly string[]
}

/** What a folder is built with: the options with every default in place. */
export interface BuildOptions {
  readonly dtype: DType
  readonly dropout: number
  readonly head?: Head
}

/** How a kind of model is kept in a Hugging Face folder. */
export interface FolderFormat<M> {
  /** `model_type` of its `config.json`. */
  readonly type: string
  /** A model with initial weights, which are not computed unless something reads them. */
  build(config: ConfigReader, options: BuildOptions): M
  /** The name of one of the model's tensors by its name in the file; null for what need not be read. */
  nameOf(fileName: string, model: M): string | null
  /** The name in the file of one of the model's tensors, where it is another. */
  fileNameOf?(name: string): string
  /** What the modules of transformers call one of the model's tensors, in all its versions, where files have other names than some of them. */
  moduleNames?(name: string): readonly string[]
  config(model: M): ConfigJson
  /** Whether one of the model's tensors belongs to the head, which may begin anew; absent where a head cannot be chosen. */
  isHead?(name: string): boolean
  /** Whether this is how `model` is kept. */
  keeps(model: unknown): model is M
}

/** `dtype` of a `config.json`. */
export const dtypeName = (dtype: DType): string | undefined =>
  ['float32', 'bfloat16', 'float64'].includes(dtype) ? dtype : undefined

/** Keys that transformers takes for nothing but a float, which JSON.stringify would write as a whole number. */
const FLOATS =
  /("(?:rope_theta|factor|attention_factor|low_freq_factor|high_freq_factor|beta_fast|beta_slow|rope_local_base_freq|final_logit_softcapping|attn_logit_softcapping|initializer_factor|[a-z_]*dropout[a-z_]*|[a-z_]*eps(?:ilon)?)": -?\d+)(,?)$/gm

/** `config.json` as a text, with its keys in order, as transformers writes it. */
export function configText(config: ConfigJson): string {
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)))
  return `${JSON.stringify(sorted, null, 2).replace(FLOATS, '$1.0$2')}\n`
}

/** Where a model was loaded from: what its folder says that steepest does not look at is written back. A map, so that no walk over tensors enters it. */
export type Origin = ReadonlyMap<'config', ConfigJson>

const own = new Set(['torch_dtype', 'dtype', 'rope_scaling', 'rope_parameters', 'rope_theta', 'transformers_version'])

/** What the folder said that is not said by `config`. */
export const keptKeys = (origin: Origin | undefined): ConfigJson =>
  Object.fromEntries(Object.entries(origin?.get('config') ?? {}).filter(([key]) => !own.has(key)))
