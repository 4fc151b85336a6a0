import type { Attrs } from '../ops/define.js'

const identities = new WeakMap<object, number>()
let next = 0

/** A text that is equal for equal attributes; a sub-graph is equal to itself only. */
export function attrsKey(attrs: Attrs): string {
  return JSON.stringify(attrs, (_, value: unknown) => {
    if (typeof value !== 'object' || value === null || !('outputs' in value) || !('inputs' in value)) return value
    let id = identities.get(value)
    if (id === undefined) identities.set(value, (id = next++))
    return `graph ${id}`
  })
}
