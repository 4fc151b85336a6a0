import { readFileSync } from 'node:fs'

/** Bytes of this process by a key of its status: `VmRSS` resident now, `VmHWM` at most so far. */
export const resident = (key) =>
  1024 * Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1])
