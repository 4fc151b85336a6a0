import { SteepestError } from '../errors.js'
import { cast } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import { isFloat } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { flatten } from '../transform/tree.js'

/** What a model sees beside its batch. */
export interface ContextOptions {
  /** Whether dropout drops and running statistics move; false by default. */
  training?: boolean
  /** Key of this step and micro-batch, int32 [2]; needed where something is random. */
  key?: Tensor
  /** Stable numbers of the examples, int32 [batch], so that random numbers belong to examples. */
  ids?: Tensor
  /** What a sum of losses is divided by, a float32 scalar: the weight of the labels of all micro-batches of the step. */
  normalizer?: Tensor
}

/** Carries through a forward pass what is neither parameter nor batch: the mode, randomness and writes to module state. */
export class Context {
  readonly training: boolean
  readonly key: Tensor | undefined
  readonly ids: Tensor | undefined
  readonly normalizer: Tensor | undefined
  /** @internal New values of state tensors, by the tensor that they replace. */
  readonly writes = new Map<Tensor, Tensor>()
  /** @internal Numbers of this step by name. */
  readonly reports = new Map<string, Tensor>()
  private readonly waiting: { probes: readonly Tensor[]; then: (cotangents: readonly Tensor[]) => void }[] = []
  private sites = 0

  constructor(options: ContextOptions = {}) {
    this.training = options.training ?? false
    this.key = options.key
    this.ids = options.ids
    this.normalizer = options.normalizer
  }

  /** A number that tells this random op of the model from its others. */
  site(): number {
    return this.sites++
  }

  /** The key, or an error that says who needs one. */
  requireKey(who: string): Tensor {
    if (!this.key) {
      throw new SteepestError('ARGUMENT', {
        who,
        rule: 'random numbers need a key while training',
        fix: 'Give one: new Context({ training: true, key: random.key(0) })',
      })
    }
    return this.key
  }

  /** Replaces a state tensor of a module (running statistics and the like), once per step. */
  write(state: Tensor, value: Tensor): void {
    this.writes.set(state, value)
  }

  /** Gives a number of this step, a scalar, to whoever trains: it is in the step's metrics, added up over micro-batches. */
  report(name: string, value: Tensor): void {
    this.reports.set(name, cast(value, 'float32'))
  }

  /**
   * For what is known only in the backward pass: where the loss is differentiated, `then` gets the gradients of `probes` (tensors of the
   * forward pass; zeros where the loss does not depend on one) and may write and report. It is not called where nobody differentiates, as in
   * evaluation, nor for a second gradient of one step.
   */
  withGradient(probes: readonly Tensor[], then: (cotangents: readonly Tensor[]) => void): void {
    this.waiting.push({ probes, then })
  }

  /** @internal What has to be differentiated for beside the parameters. */
  get probes(): readonly Tensor[] {
    return this.waiting.flatMap((w) => w.probes)
  }

  /** @internal Hands the gradients of `probes` to those who wait for them. */
  settle(cotangents: readonly Tensor[]): void {
    let at = 0
    for (const { probes, then } of this.waiting.splice(0)) then(cotangents.slice(at, (at += probes.length)))
  }
}

/**
 * Base of the layers; a user's module need not extend it. A module is a plain class: its tensor fields are its parameters, named by
 * their path (`h.0.attn.weight`), except those listed in `buffers`, which are state that training does not differentiate.
 */
export abstract class Module {
  /** Names of own fields that are state, not parameters. */
  get buffers(): readonly string[] {
    return []
  }
}

const isBuffer = (root: unknown, path: string): boolean => {
  const names = path.split('.')
  let at = root as Record<string, unknown>
  for (let i = 0; i < names.length - 1; i++) {
    if (at instanceof Module && at.buffers.includes(names[i])) return true
    at = at[names[i]] as Record<string, unknown>
    // A record by paths has dots in its keys; it holds no module.
    if (at === undefined) return false
  }
  return at instanceof Module && at.buffers.includes(names[names.length - 1])
}

/** Names in a checkpoint by tensor, parameters and state apart. A tensor that occurs twice (tied weights) goes by its first name. */
export function namedTensors(model: unknown): { parameters: Record<string, Tensor>; state: Record<string, Tensor> } {
  const parameters: Record<string, Tensor> = {}
  const state: Record<string, Tensor> = {}
  const seen = new Set<Tensor>()
  const flat = flatten(model)
  flat.tensors.forEach((t, i) => {
    if (seen.has(t)) return
    seen.add(t)
    const path = flat.paths[i]
    const kind = isBuffer(model, path) || !isFloat(t.dtype) ? state : parameters
    kind[path] = t
  })
  return { parameters, state }
}

/** The parameters of a model by name, as checkpoints and parameter groups name them. */
export const parameters = (model: unknown): Record<string, Tensor> => namedTensors(model).parameters

/** The same model with other tensors in the places of those named. */
export function withTensors<T>(model: T, tensors: Readonly<Record<string, Tensor>>): T {
  const flat = flatten(model)
  const first = new Map<Tensor, string>()
  flat.tensors.forEach((t, i) => {
    if (!first.has(t)) first.set(t, flat.paths[i])
  })
  return flat.unflatten(flat.tensors.map((t) => tensors[first.get(t)!] ?? t))
}

/** Runs a part of a model under a name, which messages and profiles show. */
export const scope = withScope

/** A source of keys for initializers: the n-th key depends on the seed and n only. */
export class Keys {
  private n = 0
  private readonly root: Tensor
  constructor(seed = 0) {
    this.root = random.key(seed)
  }
  next(): Tensor {
    return random.foldIn(this.root, this.n++)
  }
}

let shared: Keys | undefined
/** The keys of layers that were given none. */
export const defaultKeys = (): Keys => (shared ??= new Keys(0))
