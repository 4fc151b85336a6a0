import { describe, expect, test } from 'vitest'
import * as steepest from '../../lib/index.js'
import { exportsOf } from './exports.js'

const names = exportsOf('index.ts').sort((a, b) => (a.name < b.name ? -1 : 1))

/** The names that exist at run time, namespaces opened. */
function atRunTime(module: object, prefix = ''): string[] {
  return Object.entries(module).flatMap(([name, value]) => {
    const full = prefix + name
    const isNamespace = Object.prototype.toString.call(value) === '[object Module]'
    return isNamespace ? [full, ...atRunTime(value as object, `${full}.`)] : [full]
  })
}

describe('the public surface', () => {
  // `npx vitest run test/house/surface.test.ts --update` writes the list anew: a change of it is a change for users.
  test('is the one that surface.txt lists', async () => {
    const methods = Object.getOwnPropertyNames(steepest.Tensor.prototype).filter((n) => n !== 'constructor')
    const lines = [
      ...names.map(({ name, kind }) => `${kind.padEnd(9)} ${name}`),
      ...methods.sort().map((name) => `method    Tensor.${name}`),
    ]
    await expect(`${lines.join('\n')}\n`).toMatchFileSnapshot('surface.txt')
  })

  test('is what the scanner says it is', () => {
    const values = names.filter((n) => n.kind !== 'type').map((n) => n.name)
    expect(atRunTime(steepest).sort()).toEqual(values.sort())
  })

  test('has a docstring on every name', () => {
    const bare = names.filter((n) => n.kind !== 'namespace' && !n.doc)
    expect(bare.map(({ name, file }) => `${name} in lib/${file}`)).toEqual([])
  })

  test('has no name twice', () => {
    const seen = names.map((n) => n.name)
    expect(seen.filter((name, i) => seen.indexOf(name) !== i)).toEqual([])
  })
})
