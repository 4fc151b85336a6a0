import { placeKey } from '../addon.js'
import { checkOptions } from '../errors.js'
import { evaluate, launch } from '../graph/evaluate.js'
import { build, type Executable } from '../graph/executable.js'
import { fromStorage } from '../ops/shape.js'
import { showAval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { trace, tracing } from './trace.js'
import { flatten, type Flat } from './tree.js'

export interface CompileOptions {
  /** Arguments (by number) whose memory updates may overwrite; their tensors must not be used again. */
  donate?: readonly number[]
}

interface Compiled<R> {
  executable: Executable
  captures: readonly Tensor[]
  outputs: readonly Tensor[]
  out: Flat<R>
}

/**
 * A function that traces `f` once per signature (shapes, dtypes, structure and the values of everything that is not a tensor) and from then
 * on runs one native program. JavaScript numbers that `f` uses from outside are constants: pass what changes as a tensor.
 * Within another trace it is `f` itself.
 */
export function compile<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  options: CompileOptions = {},
): (...args: A) => R {
  checkOptions('compile', options, ['donate'])
  const known = new Map<string, Compiled<R>>()
  return (...args) => {
    if (tracing()) return f(...args)
    const flat = flatten(args)
    const key = `${placeKey()} ${flat.key} ${flat.tensors.map(showAval).join(' ')}`
    let compiled = known.get(key)
    if (!compiled) {
      const { graph, captures, out } = trace('compile', f, args)
      const donated = new Set<number>()
      let at = 0
      args.forEach((arg, n) => {
        for (const _ of flatten(arg).tensors) {
          if (options.donate?.includes(n)) donated.add(at)
          at++
        }
      })
      compiled = { executable: build(graph, donated), captures, outputs: graph.outputs, out }
      known.set(key, compiled)
    }
    const { executable, captures, outputs, out } = compiled
    const inputs = [...flat.tensors, ...captures]
    evaluate(inputs)
    const results = launch(executable, inputs, outputs)
    return out.unflatten(results.map((storage, i) => fromStorage(storage, outputs[i])))
  }
}
