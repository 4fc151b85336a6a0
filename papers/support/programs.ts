import { optim, type Tensor } from 'steepest'

/** What an instruction may read: gradient, weight, two states that stay, the step to be taken, and two more. */
const READ = ['g', 'w', 'm', 'v', 'u', 'a', 'b'] as const
const WRITTEN = ['m', 'v', 'u', 'a', 'b'] as const
type Name = (typeof READ)[number]

interface Instruction {
  readonly op: string
  readonly to: (typeof WRITTEN)[number]
  readonly x: Name
  readonly y: Name
  readonly c: number
}

/** An update rule as a straight line of instructions: the weight loses the rate times `u`, `m` and `v` are there in the next step. */
export type Program = readonly Instruction[]

interface Primitive {
  readonly reads: 1 | 2
  readonly takes?: true
  readonly number: (x: number, y: number, c: number) => number
  readonly tensor: (x: Tensor, y: Tensor, c: number) => Tensor
}
const TINY = 1e-8

/** Every primitive, for numbers and for tensors. */
const PRIMITIVES: Readonly<Record<string, Primitive>> = {
  add: { reads: 2, number: (x, y) => x + y, tensor: (x, y) => x.add(y) },
  sub: { reads: 2, number: (x, y) => x - y, tensor: (x, y) => x.sub(y) },
  mul: { reads: 2, number: (x, y) => x * y, tensor: (x, y) => x.mul(y) },
  over: { reads: 2, number: (x, y) => x / (Math.abs(y) + TINY), tensor: (x, y) => x.div(y.abs().add(TINY)) },
  larger: { reads: 2, number: (x, y) => Math.max(x, y), tensor: (x, y) => x.maximum(y) },
  smaller: { reads: 2, number: (x, y) => Math.min(x, y), tensor: (x, y) => x.minimum(y) },
  blend: {
    reads: 2,
    takes: true,
    number: (x, y, c) => c * x + (1 - c) * y,
    tensor: (x, y, c) => x.mul(c).add(y.mul(1 - c)),
  },
  times: { reads: 1, takes: true, number: (x, _, c) => c * x, tensor: (x, _, c) => x.mul(c) },
  copy: { reads: 1, number: (x) => x, tensor: (x) => x },
  sign: { reads: 1, number: (x) => Math.sign(x), tensor: (x) => x.sign() },
  abs: { reads: 1, number: (x) => Math.abs(x), tensor: (x) => x.abs() },
  square: { reads: 1, number: (x) => x * x, tensor: (x) => x.square() },
  root: { reads: 1, number: (x) => Math.sqrt(Math.abs(x)), tensor: (x) => x.abs().sqrt() },
  tanh: { reads: 1, number: (x) => Math.tanh(x), tensor: (x) => x.tanh() },
}
const CONSTANTS = [-1, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 2, 10]

/** Numbers in [0, 1) from a seed. */
export function drawing(seed: number): () => number {
  let s = (seed * 2654435761 + 1) >>> 0
  return () => {
    s = (s + 0x6d2b79f5) >>> 0
    let t = Math.imul(s ^ (s >>> 15), s | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
export const pick = <T>(list: readonly T[], draw: () => number): T => list[Math.floor(draw() * list.length)]

const instruction = (draw: () => number): Instruction => ({
  op: pick(Object.keys(PRIMITIVES), draw),
  to: pick(WRITTEN, draw),
  x: pick(READ, draw),
  y: pick(READ, draw),
  c: pick(CONSTANTS, draw),
})

const line = (op: string, to: Instruction['to'], x: Name, y: Name = x, c = 1): Instruction => ({ op, to, x, y, c })
/** Adam without its corrections, from which the paper starts. */
export const ADAM: Program = [
  line('blend', 'm', 'm', 'g', 0.9),
  line('square', 'a', 'g'),
  line('blend', 'v', 'v', 'a', 0.99),
  line('root', 'b', 'v'),
  line('over', 'u', 'm', 'b'),
]
export const randomProgram = (draw: () => number, most: number): Program =>
  Array.from({ length: 1 + Math.floor(draw() * most) }, () => instruction(draw))

/** The program with an instruction more, less, or changed in one place. */
export function mutated(program: Program, draw: () => number, most: number): Program {
  const at = Math.floor(draw() * program.length)
  const way = draw()
  if (way < 1 / 3 && program.length < most) return [...program.slice(0, at), instruction(draw), ...program.slice(at)]
  if (way < 2 / 3 && program.length > 1) return program.filter((_, i) => i !== at)
  const fresh = instruction(draw)
  const field = pick(['op', 'to', 'x', 'y', 'c'] as const, draw)
  return program.map((own, i) => (i === at ? { ...own, [field]: fresh[field] } : own))
}

/** Only what has a part in the steps: what nobody reads any more is left out. */
export function pruned(program: Program): Program {
  let alive = new Set<Name>(['u'])
  for (;;) {
    const needed = new Set(alive)
    const kept: Instruction[] = []
    // States are read by the next step.
    const states = (['m', 'v'] as const).filter((k) => alive.has(k))
    const live = new Set<Name>(['u', ...states])
    for (const own of [...program].reverse()) {
      if (!live.has(own.to)) continue
      kept.unshift(own)
      live.delete(own.to)
      live.add(own.x)
      if (PRIMITIVES[own.op].reads === 2) live.add(own.y)
    }
    for (const k of live) needed.add(k)
    if (needed.size === alive.size) return kept
    alive = needed
  }
}

export const shown = (program: Program): string =>
  pruned(program)
    .map(({ op, to, x, y, c }) => {
      const { reads, takes } = PRIMITIVES[op]
      return `${to} = ${op}(${[x, ...(reads === 2 ? [y] : []), ...(takes ? [c] : [])].join(', ')})`
    })
    .join('; ')

/** A function that moves weights in place, one rule for all of them. */
export function mover(program: Program, size: number): (w: Float64Array, g: Float64Array, lr: number) => void {
  const lines = pruned(program).map(({ op, to, x, y, c }) => ({ f: PRIMITIVES[op].number, to, x, y, c }))
  const held = { m: new Float64Array(size), v: new Float64Array(size) }
  return (w, g, lr) => {
    for (let i = 0; i < size; i++) {
      const at: Record<Name, number> = { g: g[i], w: w[i], m: held.m[i], v: held.v[i], u: 0, a: 0, b: 0 }
      for (const { f, to, x, y, c } of lines) at[to] = f(at[x], at[y], c)
      w[i] -= lr * at.u
      held.m[i] = at.m
      held.v[i] = at.v
    }
  }
}

/** The program as an optimizer. */
export const optimizerOf = (program: Program, lr: number): optim.Optimizer =>
  optim.defineOptimizer({
    name: 'found',
    slots: { m: 0, v: 0 },
    step({ p, g, slots: { m, v }, lr: rate }) {
      const none = p.mul(0)
      const at: Record<Name, Tensor> = { g, w: p, m, v, u: none, a: none, b: none }
      for (const { op, to, x, y, c } of pruned(program)) at[to] = PRIMITIVES[op].tensor(at[x], at[y], c)
      return { p: p.sub(at.u.mul(rate)), m: at.m, v: at.v }
    },
  })({ lr })
