import { describe, expect, test } from 'vitest'
import { memory, optim, readAll, tensor, type Tensor } from '../../lib/index.js'
import { dequantize, quantize } from '../../lib/memory/quantized.js'
import { far, matrix, walk } from './steps.js'
import { numbers } from './training.js'

describe('a tensor in few bits', () => {
  test.each([
    [4, 256],
    [4, 700],
    [8, 1],
    [8, 513],
  ] as const)('is within half a step of each group (%i bits, %i numbers)', async (bits, n) => {
    const x = numbers(3, n).map((v, i) => v * (1 + Math.floor(i / 256)))
    const q = quantize(tensor(x), bits)
    const [codes, scales, zeros, back] = await readAll([q.codes, q.scales, q.zeros, dequantize(q, [n])])
    const groups = Math.ceil(n / 256)
    expect(codes).toHaveLength((groups * 256 * bits) / 8)
    expect([scales.length, zeros.length]).toEqual([groups, groups])
    for (let g = 0; g < groups; g++) {
      const own = x.slice(g * 256, (g + 1) * 256)
      const [least, most] = [Math.min(...own), Math.max(...own)]
      expect(zeros[g]).toBe(least)
      expect(scales[g]).toBe(most > least ? (most - least) / (2 ** bits - 1) : 1)
      own.forEach((v, i) => expect(Math.abs(back[g * 256 + i] - v)).toBeLessThanOrEqual(scales[g] / 2 + 1e-12))
      // The bounds themselves are exact.
      expect(back[g * 256 + own.indexOf(least)]).toBe(least)
      expect(back[g * 256 + own.indexOf(most)]).toBeCloseTo(most, 14)
    }
  })
})

describe('Q-GaLore', () => {
  const shapes = { a: [24, 16] } as const
  const options = { rank: 4, scale: 1, method: 'svd' as const, stagger: false }

  test('is near GaLore, nearer with more bits', async () => {
    const run = (bits: 4 | 8 | 32) =>
      walk(memory.galore(optim.sgd({ lr: 0.1 }), { ...options, updateGap: 3, basisBits: bits }), shapes, 6)
    const [four, eight, exact] = [await run(4), await run(8), await run(32)]
    const errors = [four, eight].map((shots) => far(shots[5].weights.a, exact[5].weights.a))
    expect(errors[1]).toBeLessThan(errors[0] / 4)
    expect(errors[0]).toBeLessThan(0.2 * far(exact[5].weights.a, numbers(1, 24 * 16)))
  })

  test('holds its basis in few bytes', () => {
    const w = matrix(1, 64, 160)
    const bytes = memory.qgalore(optim.adamw(), { rank: 8 }).stateBytes({ w })
    // 512 numbers: two groups of 128 bytes, and in float64 a scale and a zero each.
    expect(bytes).toMatchObject({
      m: 8 * 8 * 160,
      basis: 256,
      basisScale: 16,
      basisZero: 16,
      alike: 20,
      gap: 4,
      due: 4,
    })
    expect(memory.galore(optim.adamw(), { rank: 8, basisBits: 8 }).stateBytes({ w }).basis).toBe(512)
  })

  test('waits longer where its first vector stays, and as long as ever where it turns', async () => {
    const still = matrix(3, 24, 16)
    const optimizer = (bits: 4 | 32) =>
      memory.galore(optim.sgd({ lr: 0 }), { ...options, updateGap: 2, lazy: true, basisBits: bits })
    for (const bits of [4, 32] as const) {
      const shots = await walk(optimizer(bits), shapes, 24, () => still)
      // Six choices fill the window; then the gap doubles at each.
      expect(shots.map(({ slots }) => slots.gap.a[0])).toEqual([
        ...Array<number>(10).fill(2),
        ...Array<number>(4).fill(4),
        ...Array<number>(8).fill(8),
        16,
        16,
      ])
    }
    // A gradient along another axis each time.
    const turning = (t: number): Tensor =>
      tensor(
        Float64Array.from({ length: 24 * 16 }, (_, i) =>
          i === (Math.floor((t - 1) / 2) % 16) * 17 ? 5 : Math.sin(i * t) / 10,
        ),
        {
          shape: [24, 16],
        },
      )
    const shots = await walk(optimizer(32), shapes, 24, turning)
    expect(shots[23].slots.gap.a[0]).toBe(2)
  })
})
