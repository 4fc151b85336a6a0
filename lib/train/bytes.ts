import { SteepestError } from '../errors.js'

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  m: 1e6,
  mb: 1e6,
  g: 1e9,
  gb: 1e9,
  t: 1e12,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
}

/**
 * A size in bytes: a number of bytes, or text such as `3GB`, `1.5 GB` (10⁹ bytes each), `800MB`, `2GiB` (2³⁰).
 * @param who what the user wrote it as: an option or flag
 * @throws SteepestError OPTION
 */
export function bytesFrom(who: string, size: number | string): number {
  const [, digits, unit] = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*$/i.exec(String(size)) ?? []
  const value = typeof size === 'number' ? size : Number(digits) * (UNITS[unit?.toLowerCase() ?? ''] ?? Number.NaN)
  if (!Number.isFinite(value) || value < 1) {
    throw new SteepestError('OPTION', {
      who,
      rule: 'must be a size such as 3GB, 800MB, 1.5GiB, or a number of bytes',
      got: typeof size === 'string' ? `"${size}"` : String(size),
    })
  }
  return Math.floor(value)
}
