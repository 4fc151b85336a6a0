import { join } from 'node:path'
import { nodeFileSystem, atomicWriteFile } from '../io/files.js'
import { writeSafetensors } from '../io/safetensors.js'
import type { Lora } from '../memory/index.js'
import { transpose } from '../ops/shape.js'
import { CausalLM } from './causal.js'
import { CausalClassifier } from './classifier.js'
import { GPT2 } from './gpt2.js'
import type { FolderModel } from './hf.js'
import { T5 } from './t5.js'
import { sourceOf } from './tensors.js'

/** What PEFT calls the work of a model. */
function taskOf(model: FolderModel): string | null {
  if (model instanceof CausalLM) return 'CAUSAL_LM'
  if (model instanceof T5) return 'SEQ_2_SEQ_LM'
  return 'loss' in model && (model as { config?: { task?: string } }).config?.task === 'maskedLm' ? null : 'SEQ_CLS'
}

/** A weight that its file has as [inputs, outputs]: GPT-2's. */
const isTurned = (model: FolderModel, name: string): boolean =>
  (model instanceof GPT2 || (model instanceof CausalClassifier && model.base instanceof GPT2)) &&
  !name.startsWith('score')

/**
 * Writes low-rank additions as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors`. `peft` loads the folder on top of the
 * model that the additions are to.
 *
 * @param base where PEFT finds that model: a folder, or its name on the hub
 */
export async function saveAdapter(dir: string, adapted: Lora<FolderModel>, base: string): Promise<void> {
  const { additions, trained, scale, dropout } = adapted
  const model = adapted.base
  const names = Object.keys(additions)
  const rank = additions[names[0]].a.shape[0]
  const whole = (name: string) => name.replace(/\.weight$/, '')
  const turned = names.some((name) => isTurned(model, name))
  const sources = names.flatMap((name) => {
    const { a, b } = additions[name]
    const [first, second] = isTurned(model, name) ? [transpose(b), transpose(a)] : [a, b]
    const at = `base_model.model.${whole(name)}`
    return [sourceOf(`${at}.lora_A.weight`, first), sourceOf(`${at}.lora_B.weight`, second)]
  })
  const kept = Object.entries(trained).map(([name, t]) => sourceOf(`base_model.model.${name}`, t))
  await nodeFileSystem.makeFolder(dir)
  await writeSafetensors(join(dir, 'adapter_model.safetensors'), [...sources, ...kept], { format: 'pt' })
  const config = {
    peft_type: 'LORA',
    task_type: taskOf(model),
    base_model_name_or_path: base,
    r: rank,
    lora_alpha: scale * rank,
    lora_dropout: dropout,
    target_modules: names.map(whole).sort(),
    modules_to_save:
      kept.length > 0
        ? [...new Set(Object.keys(trained).map((name) => name.replace(/\.(weight|bias)$/, '')))].sort()
        : null,
    fan_in_fan_out: turned,
    bias: 'none',
    use_rslora: false,
    inference_mode: true,
  }
  await atomicWriteFile(join(dir, 'adapter_config.json'), `${JSON.stringify(config, null, 2)}\n`)
}
