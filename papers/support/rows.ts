import { random, type Tensor, tensor } from 'steepest'
import { keyOf } from './keys.js'

/** Examples and their classes. */
export interface Rows {
  /** [n, …] */
  x: Tensor
  /** int32 [n] */
  y: Tensor
}

/** Row numbers of a batch, step by step: every epoch is another order of all rows; what does not fill a batch is left out. */
export function sampler(seed: number, n: number, batch: number): (step: number) => Promise<Int32Array> {
  const perEpoch = Math.floor(n / batch)
  let epoch = -1
  let order: Int32Array
  return async (step) => {
    const now = Math.floor((step - 1) / perEpoch)
    if (now !== epoch) {
      order = (await random.permutation(random.foldIn(keyOf(seed, 'order'), now), n).read()) as Int32Array
      epoch = now
    }
    const at = ((step - 1) % perEpoch) * batch
    return order.slice(at, at + batch)
  }
}

/** The batches of some steps, as tensors of row numbers. */
export async function batches(seed: number, n: number, batch: number, steps: number): Promise<Tensor[]> {
  const next = sampler(seed, n, batch)
  const all: Tensor[] = []
  for (let t = 1; t <= steps; t++) all.push(tensor(await next(t)))
  return all
}

/** Points around prototypes: each class has `perClass` of them, at N(0, I) · spread; noise N(0, I) · noise. */
export async function prototypes(
  seed: number,
  {
    n,
    classes,
    perClass = 1,
    dim,
    noise = 1,
  }: { n: number; classes: number; perClass?: number; dim: number; noise?: number },
): Promise<Rows> {
  const [a, b, c] = [0, 1, 2].map((i) => random.foldIn(keyOf(seed, 'data'), i))
  const centers = random.normal(a, [classes * perClass, dim])
  const which = random.integers(b, [n], 0, classes * perClass)
  const x = centers.take(which).add(random.normal(c, [n, dim]).mul(noise))
  const y = which.remainder(classes)
  await x.read()
  return { x, y }
}

/** The strokes of seven-segment digits: a, b, c, … as rectangles [top, left, bottom, right] on a canvas of 8 × 5. */
const SEGMENTS = [
  [0, 1, 1, 4],
  [1, 4, 4, 5],
  [4, 4, 7, 5],
  [7, 1, 8, 4],
  [4, 0, 7, 1],
  [1, 0, 4, 1],
  [3, 1, 4, 4],
]
const DIGITS = ['abcdef', 'bc', 'abged', 'abgcd', 'fgbc', 'afgcd', 'afgedc', 'abc', 'abcdefg', 'abcdfg']

const SIDE = 12

/** Draws a digit with its corner at a place, as bright as told. */
function stroke(pixels: Float32Array, image: number, digit: number, left: number, top: number, bright: number): void {
  for (const letter of DIGITS[digit]) {
    const [t, l, b, r] = SEGMENTS['abcdefg'.indexOf(letter)]
    for (let row = t; row < b; row++) {
      for (let column = l; column < r; column++) pixels[(image * SIDE + top + row) * SIDE + left + column] = bright
    }
  }
}

/** Images of two digits that overlap, x [n, 144], and their classes. */
export interface Pairs {
  x: Tensor
  left: Tensor
  right: Tensor
}

/** Two digits on 12 × 12, one to the left and one to the right, each shifted, with noise; a share of the right labels is wrong. */
export async function pairs(seed: number, n: number, wrong = 0): Promise<Pairs> {
  const draw = (i: number) => random.uniform(random.foldIn(keyOf(seed, 'data'), i), [n], { dtype: 'float64' }).read()
  const [a, b, xa, xb, ya, yb, flip, other] = await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(draw))
  const pixels = new Float32Array(n * SIDE * SIDE)
  const [left, right] = [new Int32Array(n), new Int32Array(n)]
  for (let i = 0; i < n; i++) {
    left[i] = Math.floor(a[i] * 10)
    right[i] = Math.floor(b[i] * 10)
    stroke(pixels, i, left[i], Math.floor(xa[i] * 2), 1 + Math.floor(ya[i] * 3), 1)
    stroke(pixels, i, right[i], 5 + Math.floor(xb[i] * 2), 1 + Math.floor(yb[i] * 3), 1)
    if (flip[i] < wrong) right[i] = Math.floor(other[i] * 10)
  }
  const clean = tensor(pixels, { shape: [n, SIDE * SIDE] })
  const x = clean.add(random.normal(random.foldIn(keyOf(seed, 'data'), 8), [n, SIDE * SIDE]).mul(0.2))
  await x.read()
  return { x, left: tensor(left), right: tensor(right) }
}

/** Digits drawn with strokes on 12 × 12, shifted by up to two pixels, of random contrast, with noise: x [n, 1, 12, 12], y [n]. A share of the labels is wrong. */
export async function digits(seed: number, n: number, options: { noise?: number; wrong?: number } = {}): Promise<Rows> {
  const { noise = 0.1, wrong = 0 } = options
  const draw = (i: number) => random.uniform(random.foldIn(keyOf(seed, 'data'), i), [n], { dtype: 'float64' }).read()
  const [which, dx, dy, contrast, flip, other] = await Promise.all([0, 1, 2, 3, 4, 5].map(draw))
  const pixels = new Float32Array(n * SIDE * SIDE)
  const labels = new Int32Array(n)
  for (let i = 0; i < n; i++) {
    const digit = Math.floor(which[i] * 10)
    const [left, top] = [2 + Math.floor(dx[i] * 3), 1 + Math.floor(dy[i] * 3)]
    stroke(pixels, i, digit, left, top, 0.5 + contrast[i])
    labels[i] = flip[i] < wrong ? Math.floor(other[i] * 10) : digit
  }
  const clean = tensor(pixels, { shape: [n, 1, SIDE, SIDE] })
  const x = clean.add(random.normal(random.foldIn(keyOf(seed, 'data'), 6), [n, 1, SIDE, SIDE]).mul(noise))
  const centered = x.sub(x.mean()).div(x.square().mean().sqrt())
  await centered.read()
  return { x: centered, y: tensor(labels) }
}
