/** Numbers of 8 bits of an image, row by row, the channels of a pixel beside each other. */
export interface Pixels {
  readonly data: Uint8Array
  readonly width: number
  readonly height: number
  readonly channels: number
}

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x))

/** Filters by the numbers that Pillow has for them, with how far they reach. */
const FILTERS: Readonly<Record<number, { reach: number; weight: (x: number) => number }>> = {
  1: { reach: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
  2: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  3: {
    reach: 2,
    weight(at) {
      const x = Math.abs(at)
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0
    },
  },
  4: { reach: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  5: { reach: 1, weight: (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0) },
}

/** Number of the filter that takes the nearest pixel. */
export const NEAREST = 0
/** Whether a filter of this number is there. */
export const isFilter = (n: number): boolean => n === NEAREST || Object.hasOwn(FILTERS, n)

/** Weights are whole numbers of this unit, as in Pillow, so that results are the same. */
const UNIT = 2 ** 22

interface Tap {
  readonly from: number
  readonly weights: readonly number[]
}

function taps(from: number, to: number, filter: number): Tap[] {
  const scale = from / to
  if (filter === NEAREST) {
    const at = (i: number) => Math.min(from - 1, Math.floor((i + 0.5) * scale))
    return Array.from({ length: to }, (_, i) => ({ from: at(i), weights: [UNIT] }))
  }
  const { reach, weight } = FILTERS[filter]
  const wide = Math.max(scale, 1)
  return Array.from({ length: to }, (_, i) => {
    const center = (i + 0.5) * scale
    const first = Math.max(0, Math.trunc(center - reach * wide + 0.5))
    const end = Math.min(from, Math.trunc(center + reach * wide + 0.5))
    const weights = Array.from({ length: end - first }, (_, k) => weight((k + first - center + 0.5) / wide))
    const sum = weights.reduce((a, b) => a + b, 0)
    return { from: first, weights: weights.map((w) => Math.round((w / sum) * UNIT)) }
  })
}

/** Mixes pixels along one axis: `count` lines of it, whose pixels lie `step` apart and the lines `stride`. */
function mixed(
  data: Uint8Array,
  all: readonly Tap[],
  out: Uint8Array,
  { lines, step, stride, outStep, outStride, channels }: Readonly<Record<string, number>>,
): void {
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < all.length; i++) {
      const { from, weights } = all[i]
      for (let c = 0; c < channels; c++) {
        let sum = UNIT / 2
        let at = line * stride + from * step + c
        for (let k = 0; k < weights.length; k++, at += step) sum += data[at] * weights[k]
        out[line * outStride + i * outStep + c] = Math.max(0, Math.min(255, Math.floor(sum / UNIT)))
      }
    }
  }
}

function across({ data, width, height, channels }: Pixels, to: number, filter: number): Pixels {
  if (to === width) return { data, width, height, channels }
  const out = new Uint8Array(to * height * channels)
  mixed(data, taps(width, to, filter), out, {
    lines: height,
    step: channels,
    stride: width * channels,
    outStep: channels,
    outStride: to * channels,
    channels,
  })
  return { data: out, width: to, height, channels }
}

function down({ data, width, height, channels }: Pixels, to: number, filter: number): Pixels {
  if (to === height) return { data, width, height, channels }
  const out = new Uint8Array(width * to * channels)
  const row = width * channels
  mixed(data, taps(height, to, filter), out, {
    lines: width,
    step: row,
    stride: channels,
    outStep: row,
    outStride: channels,
    channels,
  })
  return { data: out, width, height: to, channels }
}

/** An image of another size, with the numbers of Pillow: first across, then down, each rounded to 8 bits. (Pillow 13 begins with down now and then.) */
export const resized = (image: Pixels, to: { width: number; height: number }, filter: number): Pixels =>
  down(across(image, to.width, filter), to.height, filter)
