import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { SteepestError } from '../errors.js'
import { readSmallFile } from '../io/read.js'
import { isFilter, type Pixels, resized } from './resample.js'

/** How images become what a model reads. */
export interface ImageProcessor {
  readonly width: number
  readonly height: number
  /** Numbers of the channels one after the other, [3, height, width]. */
  process(image: Pixels): Float32Array
}

/** Height and width of an image that is read, and where it comes from. */
interface Sizes {
  /** Makes the image this size. */
  resize(image: Pixels): { width: number; height: number }
  /** What is cut out of its middle. */
  width: number
  height: number
}

type Json = Readonly<Record<string, unknown>>
type SizeJson = number | Readonly<Partial<Record<'height' | 'width' | 'shortest_edge', number>>>

/** The shorter side gets a length, the longer one keeps the proportion. */
const byShorter =
  (n: number) =>
  ({ width, height }: Pixels) =>
    width <= height
      ? { width: n, height: Math.trunc((n * height) / width) }
      : { width: Math.trunc((n * width) / height), height: n }

/** What `size`, `crop_pct`, `do_center_crop` and `crop_size` say. */
function sizesOf(who: string, json: Json): Sizes {
  const size = json.size as SizeJson | undefined
  const kind = String(json.image_processor_type ?? json.feature_extractor_type ?? '')
  const record =
    typeof size === 'number'
      ? kind.startsWith('ConvNext')
        ? { shortest_edge: size }
        : { height: size, width: size }
      : size
  const whole = (n: unknown) => Number.isInteger(n) && Number(n) >= 1
  const { height, width, shortest_edge: shortest } = record ?? {}
  if (whole(shortest)) {
    const n = Number(shortest)
    if (kind.startsWith('ConvNext')) {
      const share = Number(json.crop_pct ?? 224 / 256)
      if (n >= 384) return { resize: () => ({ width: n, height: n }), width: n, height: n }
      return { resize: byShorter(Math.trunc(n / share)), width: n, height: n }
    }
    const crop = (
      typeof json.crop_size === 'number' ? { height: json.crop_size, width: json.crop_size } : json.crop_size
    ) as { height?: number; width?: number } | undefined
    if (json.do_center_crop === true && whole(crop?.height) && whole(crop?.width))
      return { resize: byShorter(n), width: Number(crop!.width), height: Number(crop!.height) }
  } else if (whole(height) && whole(width)) {
    const exact = { width: Number(width), height: Number(height) }
    return { resize: () => exact, ...exact }
  }
  throw new SteepestError('FORMAT', {
    who,
    rule: '`size` must be { height, width }, or { shortest_edge } with a crop, so that all images have one size',
    got: JSON.stringify({ size, do_center_crop: json.do_center_crop, crop_size: json.crop_size }),
  })
}

/** The middle of an image; black where it is smaller. */
function middle({ data, width, height, channels }: Pixels, to: { width: number; height: number }): Uint8Array {
  if (to.width === width && to.height === height) return data
  const [left, top] = [Math.floor((width - to.width) / 2), Math.floor((height - to.height) / 2)]
  const out = new Uint8Array(to.width * to.height * channels)
  for (let y = Math.max(0, -top); y < Math.min(to.height, height - top); y++) {
    const from = Math.max(0, -left)
    const end = Math.min(to.width, width - left)
    const source = ((y + top) * width + from + left) * channels
    out.set(data.subarray(source, source + (end - from) * channels), (y * to.width + from) * channels)
  }
  return out
}

const three = (who: string, key: string, value: unknown): readonly number[] => {
  if (Array.isArray(value) && value.length === 3 && value.every((v) => Number.isFinite(v))) return value as number[]
  throw new SteepestError('FORMAT', {
    who,
    rule: `\`${key}\` must be three numbers`,
    got: JSON.stringify(value) ?? 'nothing',
  })
}

/** What a `preprocessor_config.json` says. */
export function imageProcessor(who: string, json: Json): ImageProcessor {
  const filter = Number(json.resample ?? 2)
  if (!isFilter(filter))
    throw new SteepestError('FORMAT', {
      who,
      rule: '`resample` must be 0 to 5, as Pillow has them',
      got: String(json.resample),
    })
  const { resize, width, height } = sizesOf(who, json)
  const factor = json.do_rescale === false ? 1 : Number(json.rescale_factor ?? 1 / 255)
  const normal = json.do_normalize !== false
  const mean = normal ? three(who, 'image_mean', json.image_mean ?? [0.5, 0.5, 0.5]) : [0, 0, 0]
  const std = normal ? three(who, 'image_std', json.image_std ?? [0.5, 0.5, 0.5]) : [1, 1, 1]
  return {
    width,
    height,
    process(image) {
      const right = json.do_resize === false ? image : resized(image, resize(image), filter)
      const data = middle(right, { width, height })
      const plane = width * height
      const out = new Float32Array(3 * plane)
      for (let c = 0; c < 3; c++)
        for (let i = 0; i < plane; i++) out[c * plane + i] = (data[3 * i + c] * factor - mean[c]) / std[c]
      return out
    },
  }
}

/** The processor of a model folder; where it has none, images of `side` by `side` with numbers from −1 to 1. */
export async function loadImageProcessor(
  folder: string,
  side: number,
): Promise<ImageProcessor & { readonly assumed: boolean }> {
  const path = join(folder, 'preprocessor_config.json')
  if (!existsSync(path)) return { ...imageProcessor(path, { size: { height: side, width: side } }), assumed: true }
  let json: unknown
  try {
    json = JSON.parse(new TextDecoder().decode(await readSmallFile(path)))
  } catch (error) {
    throw new SteepestError(
      'FORMAT',
      { who: path, rule: 'must be JSON', got: (error as Error).message.slice(0, 120) },
      { cause: error },
    )
  }
  return { ...imageProcessor(path, json as Json), assumed: false }
}
