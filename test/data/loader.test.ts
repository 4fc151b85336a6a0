import { describe, expect, test } from 'vitest'
import { collected } from '../collected.js'
import { evaluationSteps, joinDocuments, permutation, splitTokens, TextLoader, Windows } from '../../lib/data/index.js'
import type { StepData } from '../../lib/train/data.js'

const tokens = Int32Array.from({ length: 5003 }, (_, i) => i)
const { train, validation } = splitTokens(tokens, { context: 16 })
const rowsOf = (step: StepData, name: string): number[][] =>
  step.microBatches.flatMap((batch) => {
    const { data, shape } = batch[name]
    return Array.from({ length: shape[0] }, (_, r) => [...data.subarray(r * shape[1], (r + 1) * shape[1])])
  })

describe('permutation', () => {
  test.each([0, 1, 2, 3, 4, 5, 16, 17, 1000, 4097])('of %i gives each once', (n) => {
    const order = permutation(n, 7)
    expect(Array.from({ length: n }, (_, i) => order(i)).sort((a, b) => a - b)).toEqual(
      Array.from({ length: n }, (_, i) => i),
    )
  })

  test('depends on every word of the seed', () => {
    const first = (...seed: number[]) => Array.from({ length: 50 }, (_, i) => permutation(50, ...seed)(i)).join()
    const all = [[0], [1], [2 ** 32 - 1], [0, 0], [0, 1], [1, 0]].map((seed) => first(...seed))
    expect(new Set(all).size).toBe(all.length)
  })

  test('puts everything everywhere: chi-square over places and things', () => {
    const n = 12
    const runs = 6000
    const seen = new Float64Array(n * n)
    for (let run = 0; run < runs; run++) {
      const order = permutation(n, run)
      for (let i = 0; i < n; i++) seen[i * n + order(i)]++
    }
    const expected = runs / n
    const chi = seen.reduce((sum, x) => sum + (x - expected) ** 2 / expected, 0)
    // (n − 1)² degrees of freedom: 121 ± 15.6; five deviations.
    expect(chi).toBeLessThan(121 + 5 * 15.6)
    expect(chi).toBeGreaterThan(121 - 5 * 15.6)
  })

  test('neighbours do not stay together', () => {
    const n = 100_000
    const order = permutation(n, 3)
    let near = 0
    for (let i = 1; i < n; i++) if (Math.abs(order(i) - order(i - 1)) <= 5) near++
    expect(near).toBeLessThan(30)
  })
})

describe('packing', () => {
  test('documents are joined by the end of text', () => {
    const documents = [Int32Array.of(1, 2), Int32Array.of(), Int32Array.of(3)]
    expect([...joinDocuments(documents, 9)]).toEqual([1, 2, 9, 9, 3, 9])
    expect([...joinDocuments(documents, undefined)]).toEqual([1, 2, 3])
  })

  test('no window reaches across two pieces, and targets follow inputs', () => {
    const windows = new Windows([Int32Array.of(0, 1, 2, 3, 4), Int32Array.of(50), Int32Array.of(100, 101, 102)], 2)
    expect(windows.count).toBe(3)
    const [inputs, targets] = [new Int32Array(6), new Int32Array(6)]
    for (let i = 0; i < 3; i++) windows.copy(i, i, inputs, targets)
    expect([...inputs]).toEqual([0, 1, 2, 3, 100, 101])
    expect([...targets]).toEqual([1, 2, 3, 4, 101, 102])
    expect(() => windows.copy(3, 0, inputs, targets)).toThrow(RangeError)
  })
})

describe('TextLoader', () => {
  const options = { context: 16, batch: 3, accumulate: 2, seed: 5 }

  test('an epoch gives every window once, of training tokens alone', () => {
    const loader = new TextLoader(train, { context: 16, batch: 1, seed: 5 })
    const held = new Set(validation.flatMap((p) => [...p]))
    for (let epoch = 0; epoch < 3; epoch++) {
      const seen: number[] = []
      while (loader.state().epoch === epoch) {
        const step = loader.next()
        if (loader.state().epoch > epoch && loader.state().at > 0) break
        const [inputs] = rowsOf(step, 'inputIds')
        const [targets] = rowsOf(step, 'targets')
        expect(targets).toEqual(inputs.map((t) => t + 1))
        for (const t of [...inputs, ...targets]) expect(held.has(t)).toBe(false)
        seen.push(inputs[0])
        if (loader.state().at === loader.windowsPerEpoch + 2) break
      }
      expect(new Set(seen).size).toBe(seen.length)
      if (epoch === 0) {
        expect(seen.length).toBe(loader.windowsPerEpoch)
        expect(seen).not.toEqual([...seen].sort((a, b) => a - b))
      }
    }
  })

  test('later epochs cut the text elsewhere', () => {
    const loader = new TextLoader([tokens.subarray(0, 100)], { context: 16, batch: 1 })
    const starts = Array.from({ length: 60 }, () => rowsOf(loader.next(), 'inputIds')[0][0])
    expect(new Set(starts.map((s) => s % 16)).size).toBeGreaterThan(3)
    expect(Math.max(...starts)).toBeLessThanOrEqual(100 - 17)
  })

  test('steps have their shapes, their weight and stable numbers of examples', () => {
    const step = new TextLoader(train, options).next()
    expect(step.microBatches).toHaveLength(2)
    expect(step.weight).toBe(96)
    expect(step.tokens).toBe(96)
    for (const { inputIds, targets, ids } of step.microBatches) {
      expect([inputIds.shape, targets.shape, ids.shape]).toEqual([[3, 16], [3, 16], [3]])
      expect([inputIds.dtype, targets.dtype, ids.dtype]).toEqual(['int32', 'int32', 'int32'])
    }
  })

  test('goes on from any position as if it had not stopped', () => {
    const straight = new TextLoader(train, options)
    const steps = Array.from({ length: 200 }, () => {
      const state = JSON.parse(JSON.stringify(straight.state()))
      return { state, data: straight.next() }
    })
    expect(steps.at(-1)!.state.epoch).toBeGreaterThan(2)
    for (const at of [0, 1, 47, 48, 49, 50, 120, 199]) {
      const resumed = new TextLoader(train, options)
      resumed.restore(steps[at].state)
      for (const { data } of steps.slice(at, at + 20)) expect(resumed.next()).toEqual(data)
    }
  })

  test('one window is enough', () => {
    const loader = new TextLoader([tokens.subarray(0, 17)], { context: 16, batch: 2 })
    expect(rowsOf(loader.next(), 'inputIds').map((r) => r[0])).toEqual([0, 0])
    expect(loader.state()).toMatchObject({ epoch: 1, at: 1 })
  })

  test('says what does not fit', () => {
    expect(() => new TextLoader([tokens.subarray(0, 16)], { context: 16, batch: 1, who: 'a.txt' })).toThrow(
      '[a.txt] the text must be longer than the context; got 16 tokens for a context of 16. Give a longer text, or a context of at most 15',
    )
    expect(() => new TextLoader(train, { context: 16, batch: 0 })).toThrow(
      '`batch` must be a whole number of 1 or more; got 0',
    )
    expect(() => new TextLoader(train, { context: 16, bach: 2 } as never)).toThrow('Did you mean `batch`?')
    const loader = new TextLoader(train, options)
    const state = loader.state()
    expect(() => loader.restore({ ...state, context: 8 })).toThrow('the context that it began with; got 16 for 8')
    expect(() => loader.restore({ ...state, seed: 8 })).toThrow('the seed that it began with')
    expect(() => loader.restore({ ...state, at: 1e9 })).toThrow('lies within its epoch')
    expect(() => loader.restore(null)).toThrow('a data position has an epoch')
    expect(() => new TextLoader(validation, options).restore(state)).toThrow('begun on another text')
  })
})

describe('evaluationSteps', () => {
  test('gives every window once, in order, in batches of one shape', async () => {
    const steps = await collected(evaluationSteps(validation, { context: 16, batch: 4 })())
    const windows = new Windows(validation, 16).count
    expect(steps.map((s) => s.weight).reduce((a, b) => a! + b!, 0)).toBe(windows * 16)
    const starts = steps
      .flatMap((s) => rowsOf(s, 'inputIds').filter((_, r) => rowsOf(s, 'targets')[r][0] !== -100))
      .map((r) => r[0])
    expect(starts).toHaveLength(windows)
    expect(starts).toEqual([...new Set(starts)].sort((a, b) => a - b))
    for (const step of steps) expect(step.microBatches[0].inputIds.shape).toEqual([4, 16])
    expect(
      rowsOf(steps.at(-1)!, 'targets')
        .flat()
        .filter((t) => t === -100).length,
    ).toBe(4 * 16 - steps.at(-1)!.weight!)
  })

  test('a limit takes windows from the whole text', async () => {
    const give = evaluationSteps(validation, { context: 16, batch: 2, limit: 5 })
    const steps = await collected(give())
    const starts = steps
      .flatMap((s) => rowsOf(s, 'inputIds').filter((_, r) => rowsOf(s, 'targets')[r][0] !== -100))
      .map((r) => r[0])
    expect(starts).toHaveLength(5)
    expect(starts.at(-1)).toBeGreaterThan(3500)
    expect(await collected(give())).toEqual(steps)
  })
})
