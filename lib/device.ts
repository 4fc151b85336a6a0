import { fromNative, native } from './addon.js'
import { SteepestError } from './errors.js'

/** What numbers are computed on: the threads of this machine, or an NVIDIA GPU. */
export type Device = 'cpu' | 'cuda'

/**
 * The device of all tensors, programs and training runs that are made from now on; without a name only which it is (`cpu` at the start).
 * Tensors stay where they were made: one of the CPU cannot be used on the GPU, nor the other way. `auto` takes the GPU where there is one.
 * @throws SteepestError DEVICE with one sentence: no CUDA part, no driver, a driver that is too old, or no GPU
 */
export function device(name?: Device | 'auto'): Device {
  try {
    return native().device(name === 'auto' ? 'cuda' : name) as Device
  } catch (error) {
    const told = fromNative('device', error)
    if (name !== 'auto' || told.code !== 'DEVICE') throw told
    return native().device('cpu') as Device
  }
}

/** What a command was told by `--device`; a device that is not known is an error that names those that are. */
export function useDevice(name: string | undefined): Device {
  if (name !== undefined && name !== 'cpu' && name !== 'cuda' && name !== 'auto') {
    throw new SteepestError('OPTION', { who: 'device', rule: 'a device is cpu, cuda or auto', got: name })
  }
  return device(name)
}

/** Bytes of memory of the GPU in use; undefined on the CPU. */
export function deviceMemory(): number | undefined {
  return native().deviceInfo()?.totalBytes
}
