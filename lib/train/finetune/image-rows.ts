import { type Filled, ints, NORMALIZED } from '../../data/batchers.js'
import { loadImageProcessor } from '../../data/image-processor.js'
import { type ImageExample, imageDecoder } from '../../data/images.js'
import { type Batcher, RowLoader } from '../../data/row-loader.js'
import { SteepestError } from '../../errors.js'
import type { FolderModel } from '../../models/hf.js'
import { ResNet } from '../../models/resnet.js'
import { ViT } from '../../models/vit.js'
import type { Rows } from './stored-rows.js'

/** Image files that are looked at at once, before a run begins. */
const AT_ONCE = 32
/** Side of images for models that take any, where nobody says one. */
const SIDE = 224

/** Images with their classes for a model that tells such; a file is decoded when its turn comes. */
export async function imageRows(
  model: FolderModel,
  folder: string,
  path: string,
  names: readonly string[],
  { train, validation }: Record<'train' | 'validation', readonly ImageExample[]>,
): Promise<Rows> {
  if (!(model instanceof ViT || model instanceof ResNet))
    throw new SteepestError('DATA', {
      who: path,
      rule: `images are learned by ViT and ResNet, and ${folder} has a ${model.constructor.name}`,
      fix: 'Give rows of text: .jsonl, .csv, .tsv, .parquet or .txt',
    })
  const decoder = await imageDecoder()
  const side = model instanceof ViT ? model.config.image : SIDE
  const { width, height, process, assumed } = await loadImageProcessor(folder, side)
  if (model.config.channels !== 3 || (model instanceof ViT && (width !== side || height !== side)))
    throw new SteepestError('FORMAT', {
      who: folder,
      rule: 'preprocessor_config.json must make the images that config.json says',
      got: `3 × ${height} × ${width} for ${model.config.channels} × ${side} × ${side}`,
    })
  const all = [...train, ...validation]
  for (let at = 0; at < all.length; at += AT_ONCE)
    await Promise.all(all.slice(at, at + AT_ONCE).map((image) => decoder.check(image.path)))
  const size = 3 * width * height
  const batcher = (batch: number): Batcher<ImageExample> => ({
    take: () => batch,
    async batch(rows, numbers): Promise<Filled> {
      const data = new Float32Array(rows.length * size)
      await Promise.all(rows.map(async (row, i) => data.set(process(await decoder.decode(row.path)), i * size)))
      return {
        batch: {
          pixelValues: { data, shape: [rows.length, 3, height, width], dtype: 'float32' },
          labels: ints(Int32Array.from(rows, (row) => names.indexOf(row.label))),
          ids: ints(Int32Array.from(numbers)),
          normalized: NORMALIZED,
        },
        weight: rows.length,
      }
    },
  })
  return {
    count: train.length,
    validationCount: validation.length,
    context: width,
    unit: 'images',
    slow: true,
    notes: assumed
      ? [`the folder has no preprocessor_config.json: images of ${width} × ${height}, numbers from −1 to 1`]
      : [],
    loader: ({ batch, accumulate, seed }) => new RowLoader(train, batcher(batch), { accumulate, seed, who: path }),
    evaluation: (batch) => () => RowLoader.once(validation, batcher(batch)),
    preview: (count) => train.slice(0, count).map((row) => `${row.path} → ⟦${row.label}⟧`),
    async close() {},
  }
}
