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

/** A tensor of the training state: its name in a file, its key in the trainer, and what is read of it. */
interface Entry {
  readonly name: string
  readonly key: string
  readonly t: Tensor
  /** The file holds the weights to use; those that are trained are elsewhere. */
  readonly used?: boolean
}

/**
 * What the files of a checkpoint hold. Where the weights to use are others than those that are trained (Schedule-Free, averages), the model's
 * file has the former, so that nobody loads the wrong ones, and the optimizer's file the latter, as `weights.<name>`.
 */
function entries(trainer: Trainer, part: 'model' | 'optimizer'): Entry[] {
  const apart = new Set(trainer.evaluatedApart)
  if (part === 'model') {
    return [
      ...Object.entries(trainer.parameters).map(([k, t]) => ({ name: k, key: `p:${k}`, t, used: apart.has(k) })),
      ...Object.entries(trainer.moduleState).map(([k, t]) => ({ name: k, key: `m:${k}`, t })),
    ]
  }
  return [
    ...Object.entries(trainer.slots).map(([k, t]) => ({ name: k, key: `s:${k}`, t })),
    ...[...apart].map((k) => ({ name: `weights.${k}`, key: `p:${k}`, t: trainer.parameters[k] })),
  ]
}

/** The tensors of a checkpoint, streamed from native memory. */
export function* stateSources(trainer: Trainer, part: 'model' | 'optimizer'): Generator<TensorSource> {
  for (const { name, key, t, used } of entries(trainer, part)) {
    const buffer = used ? trainer.usedBuffer(name) : trainer.buffer(key)
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
    for (const { name, key, t, used } of entries(trainer, part)) {
      if (used) continue
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
