import { SteepestError } from '../errors.js'

/** A symmetric matrix by its diagonal and, for each row, the columns and values of what else is not zero. */
export interface SparseSymmetric {
  readonly diagonal: ArrayLike<number>
  readonly neighbours: readonly (readonly (readonly [column: number, value: number])[])[]
}

/**
 * Solves A x = b where what is not zero in A makes no cycle (a forest: trees, chains, a diagonal), in time in proportion to its size: leaves are
 * eliminated into their parents, then found back from the roots. This is Gaussian belief propagation, by which a block of any size moves as one.
 * Source: Nutini, Laradji, Schmidt, arXiv 1712.08859, section 5.
 * @param block coordinates that are solved for, the others being left alone; default all
 * @throws SteepestError where there is a cycle, or a pivot is zero
 */
export function solveForest(a: SparseSymmetric, b: ArrayLike<number>, block?: readonly number[]): Float64Array {
  const who = 'optim.solveForest'
  const n = a.diagonal.length
  if (a.neighbours.length !== n || b.length !== n)
    throw new SteepestError('SHAPE', {
      who,
      rule: 'diagonal, rows and right side must be equally long',
      got: `${n}, ${a.neighbours.length} and ${b.length}`,
    })
  const inside = new Uint8Array(n)
  for (const i of block ?? Array.from({ length: n }, (_, k) => k)) inside[i] = 1
  const parent = new Int32Array(n).fill(-1)
  const link = new Float64Array(n)
  const seen = new Uint8Array(n)
  const order: number[] = []
  for (let root = 0; root < n; root++) {
    if (!inside[root] || seen[root]) continue
    seen[root] = 1
    const stack = [root]
    while (stack.length > 0) {
      const i = stack.pop()!
      order.push(i)
      for (const [j, value] of a.neighbours[i]) {
        if (!inside[j] || value === 0 || j === i || j === parent[i]) continue
        if (seen[j])
          throw new SteepestError('ARGUMENT', {
            who,
            rule: 'what is not zero in the block must make no cycle',
            got: `a cycle through ${i} and ${j}`,
            fix: 'Take a block of forestBlock',
          })
        seen[j] = 1
        parent[j] = i
        link[j] = value
        stack.push(j)
      }
    }
  }
  const pivot = Float64Array.from(a.diagonal)
  const x = new Float64Array(n)
  for (const i of order) x[i] = b[i]
  for (let k = order.length - 1; k >= 0; k--) {
    const i = order[k]
    if (pivot[i] === 0) throw new SteepestError('ARGUMENT', { who, rule: 'no pivot may be zero', got: `row ${i}` })
    if (parent[i] < 0) continue
    const share = link[i] / pivot[i]
    pivot[parent[i]] -= share * link[i]
    x[parent[i]] -= share * x[i]
  }
  for (const i of order) x[i] = (x[i] - (parent[i] < 0 ? 0 : link[i] * x[parent[i]])) / pivot[i]
  return x
}

/**
 * The coordinates with the largest scores that make no cycle with each other: those that would close one are left out.
 * @param most coordinates at most; default all that fit
 */
export function forestBlock(
  scores: ArrayLike<number>,
  neighbours: SparseSymmetric['neighbours'],
  most = scores.length,
): number[] {
  const n = scores.length
  const root = Int32Array.from({ length: n }, (_, i) => i)
  const find = (i: number): number => {
    let at = i
    while (root[at] !== at) at = root[at] = root[root[at]]
    return at
  }
  const inside = new Uint8Array(n)
  const out: number[] = []
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => scores[j] - scores[i] || i - j)
  for (const i of order) {
    if (out.length >= most) break
    const trees = neighbours[i].filter(([j, value]) => j !== i && value !== 0 && inside[j]).map(([j]) => find(j))
    if (new Set(trees).size < trees.length) continue
    for (const tree of trees) root[tree] = i
    inside[i] = 1
    out.push(i)
  }
  return out
}
