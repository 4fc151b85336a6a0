export {
  type Checkpoint,
  type CheckpointParts,
  latestCheckpoint,
  loadCheckpoint,
  saveCheckpoint,
} from './checkpoint.js'
export { openSafetensors, type Safetensors, type TensorSource, writeSafetensors } from './safetensors.js'
