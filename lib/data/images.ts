import { readdir, stat } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { SteepestError } from '../errors.js'
import type { Pixels } from './resample.js'

/** An image file and the class that its folder names. */
export interface ImageExample {
  readonly path: string
  readonly label: string
}

const KINDS = ['.jpg', '.jpeg', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif']

/**
 * The images of a folder with a subfolder for each class, in the order of their names.
 *
 * @throws SteepestError DATA where there are no classes, or a class has no images
 */
export async function readImageFolder(dir: string): Promise<ImageExample[]> {
  const entries = await readdir(dir, { withFileTypes: true })
  const names = entries.flatMap((e) => (e.isDirectory() && !e.name.startsWith('.') ? [e.name] : [])).sort()
  if (names.length < 2)
    throw new SteepestError('DATA', {
      who: dir,
      rule: 'a folder of images must have a subfolder for each class, two at least',
      got: names.length === 0 ? 'no subfolder' : `only ${names[0]}`,
    })
  const out: ImageExample[] = []
  for (const label of names) {
    const files = (await readdir(join(dir, label))).filter((f) => KINDS.includes(extname(f).toLowerCase())).sort()
    if (files.length === 0)
      throw new SteepestError('DATA', {
        who: join(dir, label),
        rule: 'a class must have images',
        got: `no file that ends in ${KINDS.join(', ')}`,
      })
    out.push(...files.map((f) => ({ path: join(dir, label, f), label })))
  }
  return out
}

/** Whether a path is a folder. */
export const isFolder = async (path: string): Promise<boolean> =>
  (await stat(path).catch(() => undefined))?.isDirectory() ?? false

/** What is used of sharp. */
interface Pipeline {
  metadata(): Promise<{ width?: number; height?: number }>
  autoOrient(): Pipeline
  removeAlpha(): Pipeline
  toColourspace(space: 'srgb'): Pipeline
  raw(options: { depth: 'uchar' }): Pipeline
  toBuffer(options: { resolveWithObject: true }): Promise<{
    data: Uint8Array
    info: { width: number; height: number; channels: number }
  }>
}
type Sharp = (path: string, options: { failOn: 'error' }) => Pipeline

/** Reads image files. */
export interface ImageDecoder {
  /** An error where a file does not begin as an image. */
  check(path: string): Promise<void>
  /** Its pixels in red, green and blue, turned as the camera says. */
  decode(path: string): Promise<Pixels>
}

/** Named in a variable, so that the package can be built where it is not installed. */
const NAME = 'sharp'

function unreadable(path: string, error: unknown): SteepestError {
  return new SteepestError(
    'DATA',
    { who: path, rule: 'must be an image that is whole', got: (error as Error).message.split('\n')[0].slice(0, 120) },
    { cause: error },
  )
}

/**
 * What decodes images: the package sharp, which is installed with steepest where it can be.
 *
 * @throws SteepestError FILE where it is not installed
 */
export async function imageDecoder(load: () => Promise<unknown> = () => import(NAME)): Promise<ImageDecoder> {
  let sharp: Sharp
  try {
    sharp = ((await load()) as { default: Sharp }).default
  } catch (error) {
    throw new SteepestError(
      'FILE',
      {
        who: 'images',
        rule: 'images are decoded by the package sharp, which is not installed',
        fix: 'Type: npm install sharp',
      },
      { cause: error },
    )
  }
  const open = (path: string) => sharp(path, { failOn: 'error' })
  return {
    async check(path) {
      await open(path)
        .metadata()
        .catch((error) => {
          throw unreadable(path, error)
        })
    },
    async decode(path) {
      const pipeline = open(path).autoOrient().toColourspace('srgb').removeAlpha().raw({ depth: 'uchar' })
      const { data, info } = await pipeline.toBuffer({ resolveWithObject: true }).catch((error) => {
        throw unreadable(path, error)
      })
      const { width, height, channels } = info
      if (channels === 3) return { data, width, height, channels }
      // Grey images stay grey: their one number is all three.
      const rgb = new Uint8Array(width * height * 3)
      for (let i = 0; i < width * height; i++) rgb.fill(data[i * channels], 3 * i, 3 * i + 3)
      return { data: rgb, width, height, channels: 3 }
    },
  }
}
