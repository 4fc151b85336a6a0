// Trains in an address space that is too small for the step, and prints the error.
import { GPT2 } from '../../../dist/models/gpt2.js'
import { adamw } from '../../../dist/optim/index.js'
import { train } from '../../../dist/train/train.js'

const [batch, context] = [64, 512]
const model = new GPT2({ vocabSize: 256, context, layers: 6, heads: 2, width: 128 })
const rows = () => ({ data: new Int32Array(batch * context), shape: [batch, context] })
try {
  await train(model, [{ inputIds: rows(), targets: rows() }], { optimizer: adamw({ lr: 1e-3 }), steps: 1 })
} catch (error) {
  console.log(JSON.stringify({ code: error.code, message: error.message }))
}
