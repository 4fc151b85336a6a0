export { logSoftmax, softmax, type SoftmaxOptions } from './softmax.js'
export { layerNorm, type NormOptions, rmsNorm, type RmsNormOptions } from './layernorm.js'
export { groupNorm, type GroupNormOptions } from './groupnorm.js'
export { batchNorm, type BatchNormResult } from './batchnorm.js'
