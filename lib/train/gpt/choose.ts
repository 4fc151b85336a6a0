import { optimizerNamed } from '../../optim/index.js'
import { memoryLimit } from '../machine.js'
import type { TrainOptions } from '../options.js'

/** What a run is made of, with nothing left open. */
export interface Choices {
  layers: number
  heads: number
  width: number
  context: number
  batch: number
  lr: number
  weightDecay: number | undefined
  /** Name of the option → the value and why, for people. */
  chosen: Record<string, string>
}

interface Size {
  layers: number
  heads: number
  width: number
  context: number
  batch: number
}

/** Models that learn a few megabytes of text in about three minutes, by the threads of a machine. */
const SIZES: readonly (readonly [threads: number, size: Size])[] = [
  [1, { layers: 3, heads: 4, width: 128, context: 128, batch: 8 }],
  [2, { layers: 4, heads: 4, width: 128, context: 128, batch: 16 }],
  [8, { layers: 6, heads: 6, width: 192, context: 256, batch: 16 }],
  [16, { layers: 6, heads: 8, width: 256, context: 256, batch: 32 }],
  [48, { layers: 8, heads: 8, width: 512, context: 512, batch: 32 }],
]

/** Width of a head where the user does not say the number of heads. */
const HEAD = 32

function headsFor(width: number): number {
  const wanted = Math.max(1, Math.round(width / HEAD))
  for (let off = 0; off < width; off++) {
    for (const heads of [wanted - off, wanted + off]) if (heads >= 1 && width % heads === 0) return heads
  }
  return 1
}

/** The learning rate that a rule likes at width 128; wider models want less. */
const RATES: Readonly<Record<string, number>> = { adamw: 4e-3, adam: 4e-3, lion: 5e-4, sgd: 0.3 }
const DECAY: Readonly<Record<string, number>> = { adamw: 0.1, lion: 0.5 }

/** A rate that is not in the list is the optimizer's own; what looks at the objective does not change it with the width. */
function rateFor(name: string, width: number): number {
  const known: number | undefined = RATES[name]
  const own = known === undefined ? optimizerNamed(name) : undefined
  if (own?.step) return own.peakLr
  return Number(((known ?? own!.peakLr) * Math.sqrt(128 / Math.max(width, 64))).toPrecision(2))
}

const MB = 1e6

/**
 * Fills in what the user did not say. The same machine and text give the same choices: nothing here is measured.
 *
 * @param tokens tokens of the text
 */
export function choose(options: TrainOptions, tokens: number, threads: number): Choices {
  const [, size] = SIZES.findLast(([least]) => threads >= least)!
  const chosen: Record<string, string> = {}
  const pick = <T>(name: string, given: T | undefined, value: T, why: string): T => {
    if (given !== undefined) return given
    chosen[name] = `${value}${why}`
    return value
  }
  const machine = ` for ${threads} ${threads === 1 ? 'thread' : 'threads'}`
  const layers = pick('layers', options.layers, size.layers, machine)
  const width = pick(
    'width',
    options.width,
    options.heads === undefined ? size.width : Math.max(1, Math.round(size.width / options.heads)) * options.heads,
    '',
  )
  const heads = pick('heads', options.heads, options.width === undefined ? size.heads : headsFor(width), '')
  // Validation and training need some windows each, of a short text too.
  const fits = 2 ** Math.floor(Math.log2(Math.max(1, tokens / 16)))
  const context = pick(
    'context',
    options.context,
    Math.max(1, Math.min(size.context, fits)),
    fits < size.context ? ' as the text is short' : '',
  )
  const tight = memoryLimit() < 2000 * MB
  const batch = pick(
    'batch',
    options.batch,
    tight ? Math.max(1, size.batch / 4) : size.batch,
    tight ? ' as memory is short' : '',
  )
  const optimizer = options.optimizer ?? 'adamw'
  const lr = pick('lr', options.lr, rateFor(optimizer, width), ` for ${optimizer} at width ${width}`)
  return { layers, heads, width, context, batch, lr, weightDecay: options.weightDecay ?? DECAY[optimizer], chosen }
}
