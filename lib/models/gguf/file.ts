import { atomicWriteFile } from '../../io/files.js'
import { encoded, GGUF_TYPES, type GgufType } from './numbers.js'

/** A value of the header, with the type that it has there. */
export type GgufValue =
  | { readonly type: 'uint32' | 'float32'; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'strings'; readonly value: readonly string[] }
  | { readonly type: 'int32s'; readonly value: readonly number[] }

/** A tensor of the file; `shape` as everywhere here, the fastest axis last. */
export interface GgufTensor {
  readonly name: string
  readonly shape: readonly number[]
  readonly type: GgufType
  read(): Promise<Float32Array>
}

const KINDS = { uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, array: 9 } as const
const ALIGNMENT = 32

const u32 = (n: number): Buffer => {
  const b = Buffer.alloc(4)
  b.writeUInt32LE(n)
  return b
}
const u64 = (n: number): Buffer => {
  const b = Buffer.alloc(8)
  b.writeBigUInt64LE(BigInt(n))
  return b
}
const text = (s: string): Buffer => {
  const bytes = Buffer.from(s)
  return Buffer.concat([u64(bytes.length), bytes])
}

function valueBytes(v: GgufValue): Buffer {
  switch (v.type) {
    case 'uint32':
      return Buffer.concat([u32(KINDS.uint32), u32(v.value)])
    case 'float32':
      return Buffer.concat([u32(KINDS.float32), Buffer.from(Float32Array.of(v.value).buffer)])
    case 'bool':
      return Buffer.concat([u32(KINDS.bool), Buffer.of(Number(v.value))])
    case 'string':
      return Buffer.concat([u32(KINDS.string), text(v.value)])
    case 'strings':
      return Buffer.concat([u32(KINDS.array), u32(KINDS.string), u64(v.value.length), ...v.value.map(text)])
    case 'int32s':
      return Buffer.concat([
        u32(KINDS.array),
        u32(KINDS.int32),
        u64(v.value.length),
        Buffer.from(Int32Array.from(v.value).buffer),
      ])
  }
}

const bytesOf = ({ shape, type }: GgufTensor): number => {
  const { block, bytes } = GGUF_TYPES[type]
  return (shape.reduce((n, d) => n * d, 1) / block) * bytes
}
const padded = (n: number): number => ALIGNMENT * Math.ceil(n / ALIGNMENT)

/** Writes a GGUF file (version 3) as a whole or not at all, tensor by tensor. */
export async function writeGguf(
  path: string,
  header: Readonly<Record<string, GgufValue>>,
  tensors: readonly GgufTensor[],
): Promise<void> {
  let offset = 0
  const infos = tensors.map((t) => {
    const info = Buffer.concat([
      text(t.name),
      u32(t.shape.length),
      ...[...t.shape].reverse().map(u64),
      u32(GGUF_TYPES[t.type].id),
      u64(offset),
    ])
    offset += padded(bytesOf(t))
    return info
  })
  const keys = Object.entries(header).map(([key, value]) => Buffer.concat([text(key), valueBytes(value)]))
  const head = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(keys.length), ...keys, ...infos])
  async function* chunks(): AsyncGenerator<Uint8Array> {
    yield head
    yield Buffer.alloc(padded(head.length) - head.length)
    for (const t of tensors) {
      const bytes = encoded(await t.read(), t.type)
      yield bytes
      yield Buffer.alloc(padded(bytes.length) - bytes.length)
    }
  }
  await atomicWriteFile(path, chunks())
}
