export { checkpoint, customVjp } from './checkpoint.js'
export { compile, type CompileOptions } from './compile.js'
export { grad, type GradOptions, hvp, jvp, linearize, valueAndGrad, vjp } from './grad.js'
export { hessian, jacobian } from './jacobian.js'
export { cond, scan, type ScanOptions, whileLoop } from './loop.js'
export {
  type PerExample,
  perExampleGrads,
  perExampleNorms,
  type PerExampleOptions,
  perExampleProducts,
} from './per-example.js'
export { vmap, type MapAxis, type VmapOptions } from './vmap.js'
export { flatten, mapTree } from './tree.js'
