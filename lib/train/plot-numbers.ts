/** Round positions for an axis. */
export interface Ticks {
  values: number[]
  /** The distance of two neighbours: 1, 2 or 5 times a power of ten. */
  step: number
}

/** About `count` round positions inside [`low`, `high`]; at least one where the interval holds one. */
export function ticks(low: number, high: number, count: number): Ticks {
  const raw = (high - low) / Math.max(1, count)
  if (!(raw > 0) || !Number.isFinite(raw)) return { values: Number.isFinite(low) ? [low] : [], step: 0 }
  const power = 10 ** Math.floor(Math.log10(raw))
  const lead = raw / power
  const step = (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10) * power
  const values: number[] = []
  const slack = step * 1e-9
  for (let i = Math.ceil((low - slack) / step); i * step <= high + slack; i++) values.push(i === 0 ? 0 : i * step)
  return { values, step }
}

/** A position of an axis with just the digits that tell it from its neighbours: `0.5`, `1.5k`, `2M`, `1e-7`. */
export function tickLabel(value: number, step: number): string {
  if (value === 0) return '0'
  const size = Math.abs(value)
  if (size >= 1e15 || size < 1e-5) return value.toExponential(1).replace('.0e', 'e').replace('e+', 'e')
  const units: [number, string][] = [
    [1e12, 'T'],
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ]
  const [unit, name] = units.find(([u]) => size >= u) ?? [1, '']
  const digits = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9))
  return value === 0 ? '0' : (value / unit).toFixed(Math.min(digits, 8)) + name
}

/** A count with three digits: `12`, `1.24k`, `301k`, `2.9M`. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  const size = Math.abs(value)
  if (size < 1000) return Number.isInteger(value) ? String(value) : value.toPrecision(3)
  const units = ['k', 'M', 'G', 'T', 'P']
  let scaled = value
  let unit = ''
  for (const next of units) {
    if (Math.abs(scaled) < 999.5) break
    scaled /= 1000
    unit = next
  }
  const digits = Math.abs(scaled) < 9.995 ? 2 : Math.abs(scaled) < 99.95 ? 1 : 0
  return (
    scaled
      .toFixed(digits)
      .replace(/(\.\d*?)0+$/, '$1')
      .replace(/\.$/, '') + unit
  )
}

/** A quantity in a unit with a decimal prefix: `210 GFLOP/s`, `12 B`. */
export function quantity(value: number, unit: string): string {
  const scaled = short(value)
  const prefix = /[kMGTP]$/.exec(scaled)?.[0] ?? ''
  return `${prefix ? scaled.slice(0, -1) : scaled} ${prefix}${unit}`
}

/** Bytes in decimal units: `412 MB`, `1.25 GB`. */
export function bytes(value: number): string {
  return quantity(value, 'B')
}

/** A whole number with commas: `12,400`. */
export function grouped(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ',')
}

/** Seconds as `0:07`, `12:31`, `1:02:03`, `3d 04:10`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '-:--'
  const whole = Math.max(0, Math.round(seconds))
  const two = (n: number) => String(n).padStart(2, '0')
  const [d, h, m, s] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
    whole % 60,
  ]
  if (d > 0) return `${d}d ${two(h)}:${two(m)}`
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`
}

/** A number of any size with three digits: `6e-4`, `5.81e-4`, `0.920`, `12.3`. */
export function small(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value)
  const size = Math.abs(value)
  if (size >= 1e4 || size < 1e-2) return value.toExponential(2).replace(/\.?0*e\+?/, 'e')
  return value.toPrecision(3)
}
