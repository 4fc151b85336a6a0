// The public face: exports by name, nothing else.
import './installed.js'
import './ops/methods.js'
export { SteepestError, type ErrorCode } from './errors.js'
export { device, type Device } from './device.js'
export type { DType, TypedArray } from './tensor/dtype.js'
export type { Shape } from './tensor/shape.js'
export { Tensor } from './tensor/tensor.js'
export * from './ops/index.js'
export type { TensorMethods } from './ops/methods.js'
export { evaluate, readAll } from './graph/evaluate.js'
export {
  checkpoint,
  compile,
  cond,
  customVjp,
  grad,
  hessian,
  hvp,
  jacobian,
  jvp,
  linearize,
  type PerExample,
  perExampleGrads,
  perExampleNorms,
  type PerExampleOptions,
  perExampleProducts,
  scan,
  valueAndGrad,
  vjp,
  vmap,
  whileLoop,
} from './transform/index.js'
export * as nn from './nn/index.js'
export * as memory from './memory/index.js'
export * as optim from './optim/index.js'
export * as data from './data/index.js'
export * as io from './io/index.js'
export * as models from './models/index.js'
export type { Run, TrainResult } from './train/run.js'
export { train, type FitOptions } from './train/train.js'
export type { Trainable } from './train/trainer.js'
export type { StepData, StepSource } from './train/data.js'
export type { Plan, PreparedRun, StopReason, TrainEvent } from './train/events.js'
export type { GenerateOptions, TrainOptions } from './train/options.js'
export { sampleLogits, type SampleOptions } from './train/sample.js'
export * as study from './study/index.js'
export { prepareTraining } from './train/gpt/prepare.js'
export { generateText } from './train/generate/folder.js'
export {
  generate,
  type Generation,
  type Prompt,
  type WriteEnd,
  type WriteOptions,
  type Written,
  type WrittenPiece,
} from './train/generate/text.js'
