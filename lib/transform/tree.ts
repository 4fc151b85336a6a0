import { SteepestError } from '../errors.js'
import { Tensor } from '../tensor/tensor.js'

/** Any nesting of records, arrays, class instances and tensors; what is not a tensor is carried along as it is. */
export type Tree = unknown

/** The tensors of a tree, and what puts others in their places. */
export interface Flat<T> {
  readonly tensors: Tensor[]
  /** Dotted paths of the tensors, as `parameters()` names them. */
  readonly paths: string[]
  /** The same tree with other tensors (or other leaves). */
  readonly unflatten: (leaves: readonly unknown[]) => T
  /** Equal for trees of one structure with equal static values. */
  readonly key: string
}

const isTree = (x: unknown): x is object =>
  typeof x === 'object' &&
  x !== null &&
  !ArrayBuffer.isView(x) &&
  !(x instanceof RegExp) &&
  !(x instanceof Date) &&
  !(x instanceof Map) &&
  !(x instanceof Set)

const identities = new WeakMap<object, number>()
let nextIdentity = 0
function staticKey(x: unknown): string {
  if (typeof x === 'function' || (typeof x === 'object' && x !== null)) {
    let id = identities.get(x)
    if (id === undefined) identities.set(x, (id = nextIdentity++))
    return `#${id}`
  }
  return Object.is(x, -0) ? '-0' : `${typeof x}:${String(x)}`
}

/** Takes a tree apart. A tensor that occurs twice is listed twice; a cycle is an error. */
export function flatten<T>(tree: T): Flat<T> {
  const tensors: Tensor[] = []
  const paths: string[] = []
  const keys: string[] = []
  const open = new Set<object>()

  const walk = (x: unknown, path: string): ((next: () => unknown) => unknown) => {
    if (x instanceof Tensor) {
      tensors.push(x)
      paths.push(path)
      keys.push('t')
      return (next) => next()
    }
    if (!isTree(x)) {
      keys.push(staticKey(x))
      return () => x
    }
    if (open.has(x))
      throw new SteepestError('ARGUMENT', { who: path || 'tree', rule: 'a tree of tensors must not contain itself' })
    open.add(x)
    const join = (key: string) => (path ? `${path}.${key}` : key)
    let build: (next: () => unknown) => unknown
    if (Array.isArray(x)) {
      keys.push(`[${x.length}`)
      const parts = x.map((child, i) => walk(child, join(String(i))))
      build = (next) => parts.map((part) => part(next))
    } else {
      const names = Object.keys(x)
      const proto = Object.getPrototypeOf(x) as object | null
      keys.push(`{${names.join(',')}${proto === Object.prototype || proto === null ? '' : staticKey(proto)}`)
      const parts = names.map((name) => walk((x as Record<string, unknown>)[name], join(name)))
      build = (next) => {
        const out = Object.create(proto) as Record<string, unknown>
        names.forEach((name, i) => (out[name] = parts[i](next)))
        return out
      }
    }
    open.delete(x)
    return build
  }

  const build = walk(tree, '')
  return {
    tensors,
    paths,
    key: keys.join('|'),
    unflatten: (leaves) => {
      let i = 0
      return build(() => leaves[i++]) as T
    },
  }
}

/** The same tree with every tensor replaced. */
export function mapTree<T>(tree: T, f: (t: Tensor, path: string) => unknown): T {
  const flat = flatten(tree)
  return flat.unflatten(flat.tensors.map((t, i) => f(t, flat.paths[i])))
}
