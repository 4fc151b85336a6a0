export { MultiHeadAttention, type AttentionOptions } from './attention.js'
export {
  Conv1d,
  Conv2d,
  type ConvOptions,
  ConvTranspose1d,
  ConvTranspose2d,
  type ConvTransposeOptions,
} from './conv.js'
export { Dropout } from './dropout.js'
export { Embedding } from './embedding.js'
export { type CoordinateCheck, type CoordinateModel, coordinateCheck } from './coordinates.js'
export * as init from './init.js'
export { Linear, type LinearOptions } from './linear.js'
export { activations, type Activation, MLP } from './mlp.js'
export { Context, type ContextOptions, Keys, Module, namedTensors, parameters, scope, withTensors } from './module.js'
export { type AbcExponents, abcRegime, type Mup, type MupOptions, mup, type WidthKind } from './mup.js'
export { BatchNorm, GroupNorm, LayerNorm, RMSNorm } from './norm.js'
export {
  AdaptiveAvgPool,
  AvgPool1d,
  AvgPool2d,
  type AvgPoolOptions,
  MaxPool1d,
  MaxPool2d,
  type MaxPoolOptions,
} from './pooling.js'
export { type Layer, Sequential } from './sequential.js'
export { type BlockOptions, TransformerBlock } from './transformer.js'
