import { SteepestError } from '../errors.js'
import { bytesOf } from '../tensor/dtype.js'
import type { Checkpoint, TensorSource } from '../io/checkpoint.js'
import { nearest } from '../errors.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Trainer } from './trainer.js'

/** Bytes that are copied out of native memory at a time. */
const PIECE = 4 << 20

function* pieces(read: (target: Uint8Array, offset: number) => void, bytes: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes; at += PIECE) {
    const piece = new Uint8Array(Math.min(PIECE, bytes - at))
    read(piece, at)
    yield piece
  }
}

const groups = { model: ['p', 'm'], optimizer: ['s'] } as const

/** Training state by its name in a file, and by that in the trainer. */
function* entries(trainer: Trainer, part: 'model' | 'optimizer'): Generator<[name: string, key: string, t: Tensor]> {
  const of = { p: trainer.parameters, m: trainer.moduleState, s: trainer.slots }
  for (const g of groups[part]) for (const [k, t] of Object.entries(of[g])) yield [k, `${g}:${k}`, t]
}

/** The tensors of a checkpoint, streamed from native memory. */
export function* stateSources(trainer: Trainer, part: 'model' | 'optimizer'): Generator<TensorSource> {
  for (const [name, key, t] of entries(trainer, part)) {
    const buffer = trainer.buffer(key)
    yield {
      name,
      dtype: t.dtype,
      shape: t.shape,
      read: () => pieces((target, at) => buffer.read(target, at), t.size * bytesOf(t.dtype)),
    }
  }
}

/** Reads a checkpoint's tensors into native memory. */
export async function restoreTensors(trainer: Trainer, checkpoint: Checkpoint): Promise<void> {
  for (const part of ['model', 'optimizer'] as const) {
    const loaded = new Map((part === 'model' ? checkpoint.model : checkpoint.optimizer).map((t) => [t.name, t]))
    for (const [name, key, t] of entries(trainer, part)) {
      const from = loaded.get(name)
      if (!from) {
        const near = nearest(name, loaded.keys())
        throw new SteepestError('CHECKPOINT', {
          who: checkpoint.dir,
          rule: `the checkpoint is of another model: it has no ${name}`,
          fix: near ? `It has ${near}` : '',
        })
      }
      if (from.shape.join() !== t.shape.join()) {
        throw new SteepestError('CHECKPOINT', {
          who: `${checkpoint.dir}: ${name}`,
          rule: 'the checkpoint is of another model: shapes must be equal',
          got: `[${from.shape.join(', ')}] for [${t.shape.join(', ')}]`,
        })
      }
      const buffer = trainer.buffer(key)
      await from.readPieces((bytes, offset) => buffer.write(bytes, offset), t.dtype)
    }
  }
}
