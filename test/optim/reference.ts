/** Plain loops over float64 numbers, written from the papers and PyTorch's documentation, to compare with. */
export interface Reference {
  /** Moves `p` by `g` in place; t counts from 1. */
  step(p: number[], g: readonly number[], lr: number, t: number): void
}

type Numbers = number[]
const zeros = (n: number): Numbers => new Array<number>(n).fill(0)

export const references = {
  sgd(
    n: number,
    o: { momentum?: number; dampening?: number; nesterov?: boolean; weightDecay?: number } = {},
  ): Reference {
    const { momentum = 0, dampening = 0, nesterov = false, weightDecay = 0 } = o
    const m = zeros(n)
    return {
      step(p, grad, lr, t) {
        for (let i = 0; i < n; i++) {
          let g = grad[i] + weightDecay * p[i]
          if (momentum !== 0) {
            m[i] = t === 1 ? g : momentum * m[i] + (1 - dampening) * g
            g = nesterov ? g + momentum * m[i] : m[i]
          }
          p[i] -= lr * g
        }
      },
    }
  },
  adam(
    n: number,
    o: { betas?: [number, number]; eps?: number; weightDecay?: number; amsgrad?: boolean; decoupled?: boolean } = {},
  ): Reference {
    const {
      betas: [b1, b2] = [0.9, 0.999],
      eps = 1e-8,
      weightDecay = o.decoupled ? 0.01 : 0,
      amsgrad = false,
      decoupled = false,
    } = o
    const [m, v, top] = [zeros(n), zeros(n), zeros(n)]
    return {
      step(p, grad, lr, t) {
        for (let i = 0; i < n; i++) {
          let g = grad[i]
          if (decoupled) p[i] *= 1 - lr * weightDecay
          else g += weightDecay * p[i]
          m[i] = b1 * m[i] + (1 - b1) * g
          v[i] = b2 * v[i] + (1 - b2) * g * g
          top[i] = Math.max(top[i], v[i])
          const second = (amsgrad ? top[i] : v[i]) / (1 - b2 ** t)
          p[i] -= (lr * m[i]) / (1 - b1 ** t) / (Math.sqrt(second) + eps)
        }
      },
    }
  },
  adamw: (
    n: number,
    o: { betas?: [number, number]; eps?: number; weightDecay?: number; amsgrad?: boolean } = {},
  ): Reference => references.adam(n, { ...o, decoupled: true }),
  /** AdamW of Hugging Face's library. */
  adamwHf(
    n: number,
    o: { betas?: [number, number]; eps?: number; weightDecay?: number; correctBias?: boolean } = {},
  ): Reference {
    const { betas: [b1, b2] = [0.9, 0.999], eps = 1e-6, weightDecay = 0, correctBias = true } = o
    const [m, v] = [zeros(n), zeros(n)]
    return {
      step(p, g, lr, t) {
        const bias = correctBias ? Math.sqrt(1 - b2 ** t) / (1 - b1 ** t) : 1
        for (let i = 0; i < n; i++) {
          m[i] = b1 * m[i] + (1 - b1) * g[i]
          v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i]
          p[i] -= (lr * bias * m[i]) / (Math.sqrt(v[i]) + eps)
          p[i] -= lr * weightDecay * p[i]
        }
      },
    }
  },
  adabelief(
    n: number,
    o: {
      betas?: [number, number]
      eps?: number
      weightDecay?: number
      weightDecouple?: boolean
      fixedDecay?: boolean
      rectify?: boolean
      degeneratedToSgd?: boolean
      amsgrad?: boolean
    } = {},
  ): Reference {
    const { betas: [b1, b2] = [0.9, 0.999], eps = 1e-16, weightDecay = 0, weightDecouple = true } = o
    const { fixedDecay = false, rectify = true, degeneratedToSgd = true, amsgrad = false } = o
    const [m, v, top] = [zeros(n), zeros(n), zeros(n)]
    return {
      step(p, grad, lr, t) {
        const [one, two] = [1 - b1 ** t, 1 - b2 ** t]
        const most = 2 / (1 - b2) - 1
        const sma = most - (2 * t * b2 ** t) / two
        for (let i = 0; i < n; i++) {
          let g = grad[i]
          if (weightDecouple) p[i] *= 1 - weightDecay * (fixedDecay ? 1 : lr)
          else g += weightDecay * p[i]
          m[i] = b1 * m[i] + (1 - b1) * g
          v[i] = b2 * v[i] + (1 - b2) * (g - m[i]) ** 2 + eps
          top[i] = Math.max(top[i], v[i])
          if (!rectify) p[i] -= ((lr / one) * m[i]) / (Math.sqrt(amsgrad ? top[i] : v[i]) / Math.sqrt(two) + eps)
          else if (sma >= 5) {
            const r = Math.sqrt((((two * (sma - 4)) / (most - 4)) * (sma - 2) * most) / (sma * (most - 2)))
            p[i] -= ((lr * r) / one) * (m[i] / (Math.sqrt(v[i]) + eps))
          } else if (degeneratedToSgd) p[i] -= (lr / one) * m[i]
        }
      },
    }
  },
  lion(n: number, o: { betas?: [number, number]; weightDecay?: number } = {}): Reference {
    const { betas: [b1, b2] = [0.9, 0.99], weightDecay = 0 } = o
    const m = zeros(n)
    return {
      step(p, g, lr) {
        for (let i = 0; i < n; i++) {
          p[i] = p[i] * (1 - lr * weightDecay) - lr * Math.sign(b1 * m[i] + (1 - b1) * g[i])
          m[i] = b2 * m[i] + (1 - b2) * g[i]
        }
      },
    }
  },
}

/** Numbers from a standard normal distribution, the same for the same seed. */
export function normals(seed: number, n: number): Numbers {
  let state = seed * 2654435761 + 12345
  const uniform = () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 0x9e3779b9) | 0
    const x = Math.imul(state ^ (state >>> 13), 3266489917)
    return ((x ^ (x >>> 16)) >>> 0) / 4294967296
  }
  return Array.from({ length: n }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()))
}

/** Largest difference, over the largest number that was expected. */
export function worst(got: ArrayLike<number>, expect: ArrayLike<number>): number {
  let [difference, size] = [0, Number.MIN_VALUE]
  for (let i = 0; i < expect.length; i++) {
    const d = Math.abs(got[i] - expect[i])
    if (!(d <= difference)) difference = d
    size = Math.max(size, Math.abs(expect[i]))
  }
  return difference / size
}
