import { SteepestError } from '../errors.js'
import { isFloat } from '../tensor/dtype.js'
import { MAX_RANK, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { mul } from './elementwise.js'
import { matmul } from './matmul.js'
import { sum } from './reduce.js'
import { reshape, slice, transpose } from './shape.js'

/** A tensor whose axes have names. */
interface Term {
  readonly x: Tensor
  readonly names: readonly string[]
}

const who = 'einsum'
const fail = (rule: string, got: string, fix?: string): never => {
  throw new SteepestError('ARGUMENT', { who, rule, got, fix })
}

// Axes of `...` get names that cannot be written: digits, counted from the last.
function nameAxes(label: string, rank: number, spec: string): string[] {
  const parts = label.split('...')
  if (parts.length > 2 || parts.some((p) => !/^[a-zA-Z]*$/.test(p)))
    return fail('labels are letters and at most one `...`', `\`${label}\` in \`${spec}\``)
  const letters = parts.join('').length
  const rest = rank - letters
  if (rest < 0 || (parts.length === 1 && rest !== 0))
    return fail('every axis must have a letter', `\`${label}\` for ${rank} axes`)
  if (parts.length === 1) return [...label]
  return [...parts[0], ...Array.from({ length: rest }, (_, i) => `${rest - 1 - i}`), ...parts[1]]
}

function parse(
  spec: string,
  tensors: readonly Tensor[],
): { terms: Term[]; output: string[]; lengths: Map<string, number> } {
  const [left, right, ...more] = spec.replace(/\s/g, '').split('->')
  const labels = left.split(',')
  if (more.length > 0) fail('at most one `->`', `\`${spec}\``)
  if (labels.length !== tensors.length)
    fail('one label per tensor, between commas', `\`${spec}\` for ${tensors.length} tensors`)
  const lengths = new Map<string, number>()
  const terms = tensors.map((x, i) => {
    const names = nameAxes(labels[i], x.rank, spec)
    names.forEach((name, axis) => {
      const before = lengths.get(name) ?? 1
      const d = x.shape[axis]
      const broadcasts = /\d/.test(name)
      if (lengths.has(name) && before !== d && !(broadcasts && (before === 1 || d === 1))) {
        throw new SteepestError('SHAPE', {
          who,
          rule: 'axes of one name must have one length',
          got: `\`${broadcasts ? '...' : name}\` of ${before} and ${d} in \`${spec}\``,
        })
      }
      lengths.set(name, before === 1 ? d : before)
    })
    return { x, names }
  })
  const all = terms.flatMap((t) => t.names)
  const dots = [...new Set(all.filter((n) => /\d/.test(n)))].sort((a, b) => Number(b) - Number(a))
  let output: string[]
  if (right === undefined) {
    output = [
      ...dots,
      ...[...new Set(all)].filter((n) => !dots.includes(n) && all.indexOf(n) === all.lastIndexOf(n)).sort(),
    ]
  } else {
    const hasDots = right.includes('...')
    output = nameAxes(right, right.replace('...', '').length + (hasDots ? dots.length : 0), spec)
    if (!hasDots && dots.length > 0) fail('the output must have `...` where an operand has it', `\`${spec}\``)
  }
  if (new Set(output).size !== output.length) fail('a letter may stand once in the output', `\`${spec}\``)
  for (const name of output)
    if (!lengths.has(name)) fail('a letter of the output must be in an operand', `\`${name}\` in \`${spec}\``)
  return { terms, output, lengths }
}

const without = (names: readonly string[], gone: readonly string[]) => names.filter((n) => !gone.includes(n))

const sumOver = ({ x, names }: Term, gone: readonly string[]): Term => {
  const axes = names.flatMap((n, i) => (gone.includes(n) ? [i] : []))
  return axes.length === 0 ? { x, names } : { x: sum(x, { axis: axes }), names: without(names, gone) }
}

// An operand with a repeated letter keeps its diagonal: a step of n + 1 through the two axes as one.
function diagonal(term: Term): Term {
  const { names } = term
  const at = names.findIndex((n, i) => names.indexOf(n) !== i)
  if (at < 0) return term
  const first = names.indexOf(names[at])
  const rest = names.map((_, i) => i).filter((i) => i !== first && i !== at)
  const moved = transpose(term.x, [...rest, first, at])
  const n = term.x.shape[at]
  const lead = moved.shape.slice(0, -2)
  const flat = reshape(moved, [...lead, n * n])
  const x = slice(flat, [...lead.map(() => null), [0, null, n + 1]])
  return diagonal({ x, names: [...rest.map((i) => names[i]), names[at]] })
}

// Axes in the order of `names`; a missing one has length 1.
function align({ x, names }: Term, order: readonly string[]): Tensor {
  const present = order.filter((n) => names.includes(n))
  const t = transpose(
    x,
    present.map((n) => names.indexOf(n)),
  )
  let next = 0
  return reshape(
    t,
    order.map((n) => (names.includes(n) ? t.shape[next++] : 1)),
  )
}

function contract(a: Term, b: Term, kept: ReadonlySet<string>, lengths: ReadonlyMap<string, number>): Term {
  const shared = a.names.filter((n) => b.names.includes(n))
  const left = sumOver(
    a,
    a.names.filter((n) => !shared.includes(n) && !kept.has(n)),
  )
  const right = sumOver(
    b,
    b.names.filter((n) => !shared.includes(n) && !kept.has(n)),
  )
  const summed = shared.filter((n) => !kept.has(n))
  const batch = shared.filter((n) => kept.has(n))
  const rows = without(left.names, shared)
  const columns = without(right.names, shared)
  // A broadcast `...` axis has length 1 in one operand: nothing to multiply along, so the elementwise form serves.
  const broadcast = shared.some((n) => a.x.shape[a.names.indexOf(n)] !== b.x.shape[b.names.indexOf(n)])
  if (summed.length === 0 || broadcast || !isFloat(a.x.dtype) || !isFloat(b.x.dtype)) {
    const names = [...batch, ...rows, ...columns, ...summed]
    if (names.length > MAX_RANK) fail(`intermediate results have at most ${MAX_RANK} axes`, names.join(''))
    return sumOver({ x: mul(align(left, names), align(right, names)), names }, summed)
  }
  const size = (names: readonly string[]) => sizeOf(names.map((n) => lengths.get(n)!))
  const dims = (t: Term, names: readonly string[]) => names.map((n) => t.x.shape[t.names.indexOf(n)])
  const batchDims = dims(left, batch)
  const x = reshape(align(left, [...batch, ...rows, ...summed]), [...batchDims, size(rows), size(summed)])
  const y = reshape(align(right, [...batch, ...summed, ...columns]), [...batchDims, size(summed), size(columns)])
  const names = [...batch, ...rows, ...columns]
  return { x: reshape(matmul(x, y), [...batchDims, ...dims(left, rows), ...dims(right, columns)]), names }
}

/**
 * Sums of products by names of axes, as NumPy's `einsum`: `einsum('bik,bkj->bij', a, b)` is a batched matrix product.
 * A letter that is missing on the right is summed over; a letter repeated in one operand takes its diagonal; `...` stands for axes
 * that broadcast. Without `->` the output has the letters that occur once, in alphabetical order. More than two operands are
 * multiplied in pairs, the pair with the smallest result first.
 *
 * @param spec labels of the operands between commas, then `->` and the label of the output
 * @throws {SteepestError} ARGUMENT for a wrong `spec`; SHAPE where one letter has two lengths
 */
export function einsum(spec: string, ...tensors: Tensor[]): Tensor {
  const { terms: given, output, lengths } = parse(spec, tensors)
  let terms = given.map(diagonal)
  while (terms.length > 1) {
    let best = { i: 0, j: 1, cost: Number.POSITIVE_INFINITY, kept: new Set<string>() }
    for (let i = 0; i < terms.length; i++) {
      for (let j = i + 1; j < terms.length; j++) {
        const others = terms.filter((_, t) => t !== i && t !== j).flatMap((t) => t.names)
        const kept = new Set([...output, ...others])
        const names = [...new Set([...terms[i].names, ...terms[j].names])].filter((n) => kept.has(n))
        const cost = sizeOf(names.map((n) => lengths.get(n)!))
        if (cost < best.cost) best = { i, j, cost, kept }
      }
    }
    const joined = contract(terms[best.i], terms[best.j], best.kept, lengths)
    terms = [...terms.filter((_, t) => t !== best.i && t !== best.j), joined]
  }
  const last = sumOver(terms[0], without(terms[0].names, output))
  return transpose(
    last.x,
    output.map((n) => last.names.indexOf(n)),
  )
}
