export { GPT2, type GPT2Config, type TokenBatch } from './gpt2.js'
export { loadModel, type LoadOptions, saveModel } from './hf.js'
