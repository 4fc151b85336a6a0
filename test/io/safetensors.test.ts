import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { SteepestError } from '../../lib/errors.js'
import { openSafetensors, type TensorSource, writeSafetensors } from '../../lib/io/safetensors.js'
import type { DType } from '../../lib/tensor/dtype.js'
import { freshFolder } from './child.js'
import { faulty } from './faults.js'

const bytes = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength)
const tensor = (name: string, dtype: TensorSource['dtype'], shape: number[], data: ArrayBufferView): TensorSource => ({
  name,
  dtype,
  shape,
  read: () => bytes(data),
})
const filled = (n: number) => Float32Array.from({ length: n }, (_, i) => Math.fround(Math.cos(i) * 3))

/** The bytes of a file with this header and this many bytes of data. */
function raw(header: unknown, data = 0, length?: bigint): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const first = Buffer.alloc(8)
  first.writeBigUInt64LE(length ?? BigInt(json.length))
  return Buffer.concat([first, json, Buffer.alloc(data)])
}

function fileOf(content: Uint8Array, name = 'x.safetensors'): string {
  const path = join(freshFolder('st'), name)
  writeFileSync(path, content)
  return path
}

const f32 = (begin: number, end: number, shape = [(end - begin) / 4]) => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
})

describe('writing and reading', () => {
  const entries = [
    tensor('b', 'float32', [2, 3], filled(6)),
    tensor('a', 'float32', [], filled(1)),
    tensor('empty', 'float64', [0, 4], new Float64Array(0)),
    tensor('wide', 'float64', [2], Float64Array.of(Math.PI, -0)),
    tensor('half', 'bfloat16', [3], Uint16Array.of(0x3f80, 0xc000, 0x7fc0)),
    tensor('10', 'int32', [2], Int32Array.of(-5, 7)),
    tensor('ü"\n', 'uint8', [3], Uint8Array.of(1, 2, 255)),
  ]

  test('gives back what was written', async () => {
    const path = join(freshFolder('st'), 'm.safetensors')
    await writeSafetensors(path, entries, { format: 'pt', b: 'x' })
    const file = await openSafetensors(path)
    expect(file.metadata).toEqual({ b: 'x', format: 'pt' })
    expect([...file.tensors.keys()].sort()).toEqual(entries.map((e) => e.name).sort())
    for (const { name, shape, read } of entries) {
      const stored = file.tensors.get(name)!
      const target = new Uint8Array(stored.bytes).fill(9)
      await file.readInto(name, target)
      expect(stored.shape).toEqual(shape)
      expect(target).toEqual(await (read() as Uint8Array))
      expect(stored.offset % (stored.bytes / (shape as number[]).reduce((a, b) => a * b, 1) || 1)).toBe(0)
    }
    await file.close()
  })

  test('the same tensors give the same bytes in any order; the header is padded to 8', async () => {
    const dir = freshFolder('st')
    await writeSafetensors(join(dir, 'a'), entries, { x: '1', y: '2' })
    await writeSafetensors(join(dir, 'b'), [...entries].reverse(), { y: '2', x: '1' })
    const written = readFileSync(join(dir, 'a'))
    expect(readFileSync(join(dir, 'b')).equals(written)).toBe(true)
    expect(Number(written.readBigUInt64LE(0)) % 8).toBe(0)
    expect(written.subarray(8, 9).toString()).toBe('{')
  })

  test('has the layout of the reference writer', async () => {
    const path = join(freshFolder('st'), 'm.safetensors')
    await writeSafetensors(path, [
      tensor('b', 'float32', [1], filled(1)),
      tensor('a', 'bfloat16', [2], new Uint16Array(2)),
    ])
    const json =
      '{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}}'
    expect(readFileSync(path).subarray(8, -8).toString()).toBe(json.padEnd(Math.ceil(json.length / 8) * 8))
  })

  test('holds one chunk at a time', async () => {
    const dir = freshFolder('st')
    let alive = 0
    let most = 0
    const streamed: TensorSource = {
      name: 's',
      dtype: 'uint8',
      shape: [1000],
      async *read() {
        for (let i = 0; i < 10; i++) {
          most = Math.max(most, ++alive)
          yield new Uint8Array(100).fill(i)
          alive--
        }
      },
    }
    await writeSafetensors(join(dir, 'a'), [streamed])
    const file = await openSafetensors(join(dir, 'a'))
    const target = new Uint8Array(1000)
    await file.readInto('s', target)
    await file.close()
    expect(most).toBe(1)
    expect([...new Set(target)]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })

  test.each([
    ['too few', [tensor('t', 'float32', [3], filled(2))], /"t": float32\[3\] takes 12 bytes; got 8/],
    ['too many', [tensor('t', 'float32', [3], filled(4))], /"t": float32\[3\] takes 12 bytes; got more/],
    [
      'twice',
      [tensor('t', 'float32', [1], filled(1)), tensor('t', 'float32', [1], filled(1))],
      /a name of its own; got "t"/,
    ],
    ['reserved', [tensor('__metadata__', 'float32', [1], filled(1))], /a name of its own/],
    ['unknown dtype', [tensor('t', 'F31' as DType, [1], filled(1))], /"t": a file cannot hold dtype F31/],
  ])('refuses a source: %s', async (_, sources, message) => {
    const path = fileOf(Buffer.from('old'))
    await expect(writeSafetensors(path, sources)).rejects.toThrow(message)
    expect(readFileSync(path, 'utf8')).toBe('old')
  })

  test('reads and writes through short reads and writes', async () => {
    const path = join(freshFolder('st'), 'm.safetensors')
    await writeSafetensors(path, entries)
    const whole = readFileSync(path)
    for (let n = 0; n < 12; n++) {
      await writeSafetensors(path, entries, {}, faulty(n, 'short').fs)
      expect(readFileSync(path).equals(whole)).toBe(true)
      const file = await openSafetensors(path, faulty(n, 'short').fs)
      const target = new Float32Array(6)
      await file.readInto('b', bytes(target))
      expect(target).toEqual(filled(6))
      await file.close()
    }
  })

  test('wrong targets and names', async () => {
    const path = join(freshFolder('st'), 'm.safetensors')
    await writeSafetensors(path, entries)
    const file = await openSafetensors(path)
    await expect(file.readInto('c', new Uint8Array(4))).rejects.toThrow(/there is no tensor "c" in it/)
    await expect(file.readInto('b', new Uint8Array(23))).rejects.toThrow(
      /\[b\] the target holds F32\[2, 3\], 24 bytes; got 23 bytes/,
    )
    await expect(file.readInto('b', new Uint8Array(24), 'int32')).rejects.toThrow(
      /a F32 of a file cannot be read as int32/,
    )
    await file.close()
  })

  test('a file that is cut while it is open', async () => {
    const path = join(freshFolder('st'), 'm.safetensors')
    await writeSafetensors(path, entries)
    const file = await openSafetensors(path)
    truncateSync(path, readFileSync(path).length - 1)
    const last = [...file.tensors.values()].at(-1)!
    await expect(file.readInto(last.name, new Uint8Array(last.bytes))).rejects.toThrow(
      /the file ended while it was read/,
    )
    await file.close()
  })
})

describe('defects', () => {
  const defects: [string, Buffer, RegExp][] = [
    ['empty', Buffer.alloc(0), /begins with the length of its header in 8 bytes; got a file of 0 bytes/],
    ['seven bytes', Buffer.alloc(7), /got a file of 7 bytes/],
    [
      'huge header',
      raw({}, 0, 2n ** 63n),
      /the header is at most 100000000 bytes; got a length of 9223372036854775808/,
    ],
    ['header beyond the file', raw({}, 0, 3n), /a header of 3 bytes in a file of 10/],
    ['no header', raw(''), /the header begins with \{; got an empty header/],
    ['not JSON', raw('{"a":'), /the header is JSON; got /],
    ['not an object', raw('[]'), /the header begins with \{; got byte 91/],
    ['not UTF-8', Buffer.concat([raw('{"a"'), Buffer.of(0xff)]).fill(5, 0, 1), /the header is UTF-8/],
    ['a number for a tensor', raw({ a: 1 }), /tensor "a": is described by an object; got 1/],
    ['null for a tensor', raw({ a: null }), /tensor "a": is described by an object; got null/],
    ['unknown dtype', raw({ a: { ...f32(0, 4), dtype: 'F33' } }, 4), /tensor "a": the dtype is a known one; got "F33"/],
    ['dtype of Object', raw({ a: { ...f32(0, 4), dtype: 'toString' } }, 4), /the dtype is a known one; got "toString"/],
    [
      'negative length',
      raw({ a: f32(0, 4, [-1]) }, 4),
      /tensor "a": the shape is a list of non-negative integers; got \[-1\]/,
    ],
    ['fraction', raw({ a: f32(0, 4, [1.5]) }, 4), /non-negative integers; got \[1.5\]/],
    ['unsafe length', raw({ a: f32(0, 4, [2 ** 60]) }, 4), /non-negative integers/],
    ['overflow', raw({ a: f32(0, 4, [2 ** 31, 2 ** 31, 2 ** 31]) }, 4), /takes .* bytes; got 4 bytes at \[0,4\]/],
    ['no shape', raw({ a: { dtype: 'F32', data_offsets: [0, 4] } }, 4), /the shape is a list/],
    [
      'three offsets',
      raw({ a: { ...f32(0, 4), data_offsets: [0, 4, 8] } }, 8),
      /a list of two non-negative integers; got \[0,4,8\]/,
    ],
    ['backwards', raw({ a: { ...f32(0, 4), data_offsets: [4, 0] } }, 4), /do not run backwards; got \[4,0\]/],
    ['beyond the end', raw({ a: f32(0, 8) }, 4), /the data lie within the 4 bytes after the header; got \[0,8\]/],
    ['wrong size', raw({ a: f32(0, 8, [1]) }, 8), /F32\[1\] takes 4 bytes; got 8 bytes at \[0,8\]/],
    ['overlap', raw({ a: f32(0, 8), b: f32(4, 12) }, 12), /tensors do not overlap; got "a" and "b"/],
    ['same place', raw({ a: f32(0, 8), b: f32(0, 8) }, 8), /tensors do not overlap/],
    ['gap', raw({ a: f32(0, 4), b: f32(8, 12) }, 12), /tensors leave no gap; got 4 unused bytes before "b"/],
    ['late begin', raw({ a: f32(4, 8) }, 8), /tensors leave no gap; got 4 unused bytes before "a"/],
    ['bytes at the end', raw({ a: f32(0, 4) }, 5), /fill the file to its end; got 1 bytes after the last tensor/],
    [
      'unknown key',
      raw({ a: { ...f32(0, 4), stride: 1 } }, 4),
      /has a dtype, a shape and data_offsets, nothing else; got "stride"/,
    ],
    ['metadata list', raw({ __metadata__: [] }), /`__metadata__` is an object of strings; got \[\]/],
    ['metadata number', raw({ __metadata__: { a: 1 } }), /`__metadata__` is an object of strings; got 1 for "a"/],
    [
      'name twice',
      raw(`{"a":${JSON.stringify(f32(0, 4))},"a":${JSON.stringify(f32(0, 4))}}`, 4),
      /each name occurs once in the header; got "a" twice/,
    ],
    ['escaped twice', raw(`{"a":${JSON.stringify(f32(0, 4))},"\\u0061":${JSON.stringify(f32(0, 4))}}`, 4), /"a" twice/],
  ]

  test.each(defects)('%s', async (_, content, message) => {
    const path = fileOf(content)
    const error = await openSafetensors(path).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(SteepestError)
    expect((error as SteepestError).code).toBe('FORMAT')
    expect((error as SteepestError).who).toBe(path)
    expect((error as Error).message).toMatch(message)
  })

  test('whole files that look odd are read', async () => {
    for (const content of [
      raw({}),
      raw('{}      '),
      raw({ a: f32(0, 0, [0, 5]), b: f32(0, 0, [0]) }),
      raw({ ['__proto__' + 'x']: f32(0, 4) }, 4),
      raw(`{"__proto__":${JSON.stringify(f32(0, 4))}}`, 4),
      raw({ a: { dtype: 'F4', shape: [4], data_offsets: [0, 2] } }, 2),
    ]) {
      await (await openSafetensors(fileOf(content))).close()
    }
  })

  test('missing file and folder without a model', async () => {
    const dir = freshFolder('st')
    await expect(openSafetensors(join(dir, 'no.safetensors'))).rejects.toThrow(
      /cannot be read: there is no such file or folder \(ENOENT\)/,
    )
    await expect(openSafetensors(dir)).rejects.toThrow(
      /the folder holds model.safetensors or model.safetensors.index.json/,
    )
  })

  test('fuzz: any flipped bits or cut give a valid file or one sentence, never another error', async () => {
    const dir = freshFolder('st')
    const path = join(dir, 'm.safetensors')
    const list = Array.from({ length: 5 }, (_, i) => tensor(`t${i}`, 'float32', [i, 3], filled(3 * i)))
    await writeSafetensors(path, list, { format: 'pt' })
    const whole = readFileSync(path)
    const header = 8 + Number(whole.readBigUInt64LE(0))
    let seed = 12345
    const random = (n: number) => (seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff) % n
    let refused = 0
    for (let round = 0; round < 1500; round++) {
      const copy = Buffer.from(whole)
      let content: Buffer = copy
      if (round % 5 === 0) content = copy.subarray(0, random(whole.length))
      else for (let k = 0; k <= random(3); k++) copy[random(header)] ^= 1 << random(8)
      writeFileSync(path, content)
      try {
        const file = await openSafetensors(path)
        for (const t of file.tensors.values()) await file.readInto(t.name, new Uint8Array(t.bytes))
        await file.close()
        expect(round % 5).not.toBe(0)
      } catch (error) {
        if (!(error instanceof SteepestError)) throw error
        expect(['FORMAT', 'FILE']).toContain(error.code)
        expect(error.message).toContain(path)
        refused++
      }
    }
    expect(refused).toBeGreaterThan(900)
  })
})

describe('sharded models', () => {
  async function model(map: Record<string, unknown>, shards = ['one', 'two']) {
    const dir = freshFolder('st')
    if (shards.includes('one'))
      await writeSafetensors(join(dir, 'one.safetensors'), [tensor('a', 'float32', [2], filled(2))])
    if (shards.includes('two'))
      await writeSafetensors(join(dir, 'two.safetensors'), [tensor('b', 'int32', [1], Int32Array.of(42))])
    writeFileSync(
      join(dir, 'model.safetensors.index.json'),
      JSON.stringify({ metadata: { total_size: 12 }, weight_map: map }),
    )
    return dir
  }

  test('are read as one', async () => {
    const file = await openSafetensors(await model({ a: 'one.safetensors', b: 'two.safetensors' }))
    const target = new Int32Array(1)
    await file.readInto('b', bytes(target))
    expect(target[0]).toBe(42)
    expect([...file.tensors.keys()]).toEqual(['a', 'b'])
    expect(file.metadata.total_size).toBe('12')
    await file.close()
  })

  test.each<[string, Record<string, unknown>, string[], RegExp]>([
    ['missing shard', { a: 'one.safetensors', b: 'two.safetensors' }, ['one'], /the shard two.safetensors is missing/],
    [
      'wrong shard',
      { a: 'two.safetensors', b: 'one.safetensors' },
      ['one', 'two'],
      /"a" of one.safetensors is; got the index says two/,
    ],
    [
      'name that is nowhere',
      { a: 'one.safetensors', c: 'one.safetensors' },
      ['one'],
      /"c" is in one.safetensors; got it is not in that shard/,
    ],
    [
      'name left out',
      { a: 'one.safetensors', c: 'two.safetensors' },
      ['one', 'two'],
      /"b" of two.safetensors is; got the index does not name it/,
    ],
    ['path out of the folder', { a: '../one.safetensors' }, ['one'], /plain .safetensors file names/],
    ['number', { a: 1 }, ['one'], /plain .safetensors file names/],
  ])('%s', async (_, map, shards, message) => {
    const dir = await model(map, shards)
    const error = await openSafetensors(dir).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(SteepestError)
    expect((error as Error).message).toMatch(message)
  })

  test.each(['', '[]', 'null', '{"weight_map":[]}', '{'])('an index that is %j', async (content) => {
    const path = fileOf(Buffer.from(content), 'model.safetensors.index.json')
    await expect(openSafetensors(path)).rejects.toThrow(/the index (is JSON|has a `weight_map`)/)
  })
})
