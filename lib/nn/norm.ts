import { checkOptions } from '../errors.js'
import { add, cast, mul, rsqrt, sub } from '../ops/elementwise.js'
import { batchNorm, groupNorm, layerNorm, rmsNorm } from '../ops/norm.js'
import { ones, reshape, zeros } from '../ops/shape.js'
import { stopGradient } from '../ops/control.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { type Context, Module } from './module.js'

/** Zero mean and unit variance over the last axis, then weight and bias (Ba et al. 2016). */
export class LayerNorm extends Module {
  weight: Tensor
  bias: Tensor | null
  readonly eps: number

  constructor(width: number, options: { eps?: number; bias?: boolean; dtype?: DType } = {}) {
    super()
    checkOptions('LayerNorm', options, ['eps', 'bias', 'dtype'])
    this.eps = options.eps ?? 1e-5
    this.weight = ones([width], options.dtype)
    this.bias = (options.bias ?? true) ? zeros([width], options.dtype) : null
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, { weight: this.weight, bias: this.bias ?? undefined, eps: this.eps })
  }
}

/** Divided by the root mean square of the last axis, then weight (Zhang and Sennrich 2019). */
export class RMSNorm extends Module {
  weight: Tensor
  readonly eps: number

  constructor(width: number, options: { eps?: number; dtype?: DType } = {}) {
    super()
    checkOptions('RMSNorm', options, ['eps', 'dtype'])
    this.eps = options.eps ?? 1e-6
    this.weight = ones([width], options.dtype)
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, { weight: this.weight, eps: this.eps })
  }
}

/** Zero mean and unit variance over groups of channels, x [N, C, …] (Wu and He 2018). */
export class GroupNorm extends Module {
  weight: Tensor
  bias: Tensor
  readonly groups: number
  readonly eps: number

  constructor(groups: number, channels: number, options: { eps?: number; dtype?: DType } = {}) {
    super()
    checkOptions('GroupNorm', options, ['eps', 'dtype'])
    this.groups = groups
    this.eps = options.eps ?? 1e-5
    this.weight = ones([channels], options.dtype)
    this.bias = zeros([channels], options.dtype)
  }

  forward(x: Tensor): Tensor {
    return groupNorm(x, this.groups, { weight: this.weight, bias: this.bias, eps: this.eps })
  }
}

/**
 * Zero mean and unit variance of every channel over the batch, x [N, C, …] (Ioffe and Szegedy 2015); in evaluation with the running
 * statistics, which move by `momentum` of the way at every training step (the running variance is the unbiased one, as in PyTorch).
 */
export class BatchNorm extends Module {
  weight: Tensor
  bias: Tensor
  runningMean: Tensor
  runningVar: Tensor
  readonly eps: number
  readonly momentum: number

  constructor(channels: number, options: { eps?: number; momentum?: number; dtype?: DType } = {}) {
    super()
    checkOptions('BatchNorm', options, ['eps', 'momentum', 'dtype'])
    this.eps = options.eps ?? 1e-5
    this.momentum = options.momentum ?? 0.1
    this.weight = ones([channels], options.dtype)
    this.bias = zeros([channels], options.dtype)
    this.runningMean = zeros([channels], options.dtype)
    this.runningVar = ones([channels], options.dtype)
  }

  override get buffers(): readonly string[] {
    return ['runningMean', 'runningVar']
  }

  forward(x: Tensor, ctx: Context): Tensor {
    if (ctx.training) {
      const { y, mean, variance } = batchNorm(x, this.weight, this.bias, { eps: this.eps })
      const n = x.size / x.shape[1]
      const keep = (old: Tensor, now: Tensor) =>
        cast(add(mul(old, 1 - this.momentum), mul(stopGradient(now), this.momentum)), old.dtype)
      ctx.write(this.runningMean, keep(this.runningMean, mean))
      ctx.write(this.runningVar, keep(this.runningVar, mul(variance, n / Math.max(1, n - 1))))
      return y
    }
    const shape = x.shape.map((d, i) => (i === 1 ? d : 1))
    const scale = mul(rsqrt(add(this.runningVar, this.eps)), this.weight)
    return add(mul(sub(x, reshape(this.runningMean, shape)), reshape(scale, shape)), reshape(this.bias, shape))
  }
}
