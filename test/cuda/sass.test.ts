import { join } from 'node:path'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { root } from '../house/scan.js'

interface Hot {
  name: string
  symbol: string
  loads?: number
  stores?: number
  stack?: number
}
type Accesses = Map<string, { loads: number; stores: number }>
const gate = (await import(join(root, 'scripts', 'sass.mjs'))) as {
  stacksOf(text: string): Map<string, number>
  accessesOf(text: string): Accesses
  judge(hot: readonly Hot[], stacks: Map<string, number>, accesses?: Accesses): string[]
}

const usage = `Resource usage:
 Common:
  GLOBAL:0
 Function _Z4copyPf:
  REG:32 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:560
 Function _Z4normIfEvPT_:
  REG:48 STACK:40 SHARED:1152 LOCAL:0 CONSTANT[0]:648
`
const code = `
\t\tFunction : _Z4copyPf
        /*0100*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0110*/              @!P0 LDG.E.128.CONSTANT R8, desc[UR4][R2.64+0x10] ;
        /*0120*/                   STG.E.EF.128 desc[UR4][R6.64], R4 ;
        /*0130*/                   STG.E desc[UR4][R6.64], R4 ;
\t\tFunction : _Z4normIfEvPT_
        /*0100*/                   LDG.E R4, desc[UR4][R2.64] ;
`

test('the gate of generated code sees spills, narrow accesses and kernels that are gone', () => {
  const [stacks, accesses] = [gate.stacksOf(usage), gate.accessesOf(code)]
  expect(accesses.get('_Z4copyPf')).toEqual({ loads: 2, stores: 1 })
  expect(gate.judge([{ name: 'copy', symbol: '4copy', loads: 2, stores: 1 }], stacks, accesses)).toEqual([])
  expect(gate.judge([{ name: 'copy', symbol: '4copy', stores: 2 }], stacks, accesses)).toHaveLength(1)
  expect(gate.judge([{ name: 'norm', symbol: '4norm', loads: 1 }], stacks, accesses)).toEqual([
    'norm: 40 bytes of stack, at most 0 are allowed',
    'norm: 0 loads of 128 bits, at least 1 are wanted',
  ])
  expect(gate.judge([{ name: 'norm', symbol: '4norm', loads: 1, stack: 40 }], stacks)).toEqual([])
  expect(gate.judge([{ name: 'gone', symbol: '4gone' }], stacks, accesses)[0]).toMatch(/there is no kernel/)
})

test('every hot kernel has a name and a symbol of its own', () => {
  const hot = JSON.parse(readFileSync(join(root, 'cuda', 'hot.json'), 'utf8')) as Hot[]
  expect(new Set(hot.map((h) => h.name)).size).toBe(hot.length)
  expect(new Set(hot.map((h) => h.symbol)).size).toBe(hot.length)
})
