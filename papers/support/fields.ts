import { eigh, matmul, random, tensor } from 'steepest'
import { keyOf } from './keys.js'
import type { Rows } from './rows.js'

const SIDE = 14
const [CLASSES, TEXTURES] = [8, 3]

/** Maps noise to noise with a spectrum of 1/f^power on a torus, standard deviation 1: [n·n, n·n] row-wise. */
function spectrum(power: number): Float64Array {
  const kernel = new Float64Array(SIDE * SIDE)
  for (let u = 0; u < SIDE; u++) {
    for (let v = 0; v < SIDE; v++) {
      const [fu, fv] = [Math.min(u, SIDE - u), Math.min(v, SIDE - v)]
      const amplitude = u + v === 0 ? 0 : Math.hypot(fu, fv) ** -power
      for (let i = 0; i < SIDE; i++) {
        for (let j = 0; j < SIDE; j++)
          kernel[i * SIDE + j] += amplitude * Math.cos((2 * Math.PI * (u * i + v * j)) / SIDE)
      }
    }
  }
  const norm = Math.hypot(...kernel)
  const matrix = new Float64Array(SIDE ** 4)
  for (let a = 0; a < SIDE * SIDE; a++) {
    for (let b = 0; b < SIDE * SIDE; b++) {
      const [di, dj] = [Math.floor(a / SIDE) - Math.floor(b / SIDE) + SIDE, (a % SIDE) - (b % SIDE) + SIDE]
      matrix[a * SIDE * SIDE + b] = kernel[(di % SIDE) * SIDE + (dj % SIDE)] / norm
    }
  }
  return matrix
}

/**
 * Images of 14 × 14 with the statistics of natural ones: a field with amplitudes 1/f^1.5 behind a weak texture of high frequency, which tells
 * the class, of random contrast and brightness; `white`: turned and scaled so that their covariance is the identity.
 */
export async function fields(seed: number, n: number, white = false): Promise<Rows> {
  const pixels = SIDE * SIDE
  const draw = (i: number, shape: number[]) => random.normal(random.foldIn(keyOf(seed, 'data'), i), shape)
  const which = random.integers(random.foldIn(keyOf(seed, 'data'), 10), [n], 0, CLASSES * TEXTURES)
  // What is left of noise without its low frequencies: noise less the field that it makes.
  const smooth = tensor(Float32Array.from(spectrum(1.5)), { shape: [pixels, pixels] })
  const noise = draw(0, [CLASSES * TEXTURES, pixels])
  const sharp = noise.sub(matmul(noise, smooth))
  const textures = sharp.div(sharp.square().mean({ axis: 1, keepDims: true }).sqrt())
  const behind = matmul(draw(1, [n, pixels]), smooth)
  const image = behind.add(textures.take(which).mul(0.35))
  const contrast = draw(2, [n, 1]).mul(0.5).exp()
  const all = image.mul(contrast).add(draw(3, [n, 1]).mul(0.7))
  const centered = all.sub(all.mean({ axis: 0 }))
  let x = centered.div(centered.square().mean().sqrt())
  if (white) {
    const { values, vectors } = eigh(matmul(x.transpose(), x).div(n).cast('float64'))
    x = matmul(x, vectors.div(values.sqrt()).cast('float32'))
  }
  await x.read()
  return { x, y: which.remainder(CLASSES) }
}
