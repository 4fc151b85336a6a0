import { join } from 'node:path'
import { SteepestError } from '../errors.js'
import { atomicWriteFile, nodeFileSystem } from '../io/files.js'
import { readSmallFile } from '../io/read.js'
import { openSafetensors, writeSafetensors } from '../io/safetensors.js'
import type { Lora } from '../memory/index.js'
import { parameters, withTensors } from '../nn/module.js'
import { add, cast, mul } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { transpose } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { CausalLM } from './causal.js'
import { CausalClassifier } from './classifier.js'
import { GPT2 } from './gpt2.js'
import { type FolderModel, moduleNames, ownName } from './hf.js'
import { ResNet } from './resnet.js'
import { T5 } from './t5.js'
import { loadTensor, sourceOf } from './tensors.js'
import { ViT } from './vit.js'

/** What PEFT calls the work of a model. */
function taskOf(model: FolderModel): string | null {
  if (model instanceof CausalLM) return 'CAUSAL_LM'
  if (model instanceof T5) return 'SEQ_2_SEQ_LM'
  if (model instanceof ViT || model instanceof ResNet) return null
  return 'loss' in model && (model as { config?: { task?: string } }).config?.task === 'maskedLm' ? null : 'SEQ_CLS'
}

/** A weight that its file has as [inputs, outputs]: GPT-2's. */
const isTurned = (model: FolderModel, name: string): boolean =>
  (model instanceof GPT2 || (model instanceof CausalClassifier && model.base instanceof GPT2)) &&
  !name.startsWith('score')

/** The module that PEFT keeps whole for a tensor: of heads all, which it adds by itself to those of models that classify. */
const moduleOf = (name: string): string =>
  /^(classifier|score)\./.exec(name)?.[1] ?? name.replace(/\.(weight|bias)$/, '')

/**
 * Writes low-rank additions as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors`. `peft` loads the folder on top of the
 * model that the additions are to.
 *
 * Where versions of transformers call a module by several names (ViT), the additions are there under each: `peft` takes the one that is there.
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
    return moduleNames(model, name).flatMap((module) => {
      const at = `base_model.model.${whole(module)}`
      return [sourceOf(`${at}.lora_A.weight`, first), sourceOf(`${at}.lora_B.weight`, second)]
    })
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
    target_modules: names.flatMap((name) => moduleNames(model, name).map(whole)).sort(),
    modules_to_save: kept.length > 0 ? [...new Set(Object.keys(trained).map(moduleOf))].sort() : null,
    fan_in_fan_out: turned,
    bias: 'none',
    use_rslora: false,
    inference_mode: true,
  }
  await atomicWriteFile(join(dir, 'adapter_config.json'), `${JSON.stringify(config, null, 2)}\n`)
}

/** What is read of an `adapter_config.json`. */
interface AdapterConfig {
  peft_type?: string
  r?: number
  lora_alpha?: number
  use_rslora?: boolean
  use_dora?: boolean
  bias?: string
  rank_pattern?: object
  alpha_pattern?: object
}

/** The weights of additions, and of layers that were learned whole. */
const LORA = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/

/**
 * A model with low-rank additions, as PEFT keeps them, in its weights.
 *
 * @throws SteepestError FILE, FORMAT or SHAPE where they do not belong to the model, or are of a kind that steepest does not add
 */
export async function mergeAdapter<M extends FolderModel>(model: M, dir: string): Promise<M> {
  const who = join(dir, 'adapter_config.json')
  const config = JSON.parse(new TextDecoder().decode(await readSmallFile(who))) as AdapterConfig
  const { peft_type: kind, r, lora_alpha: alpha, use_rslora: rooted, use_dora: dora, bias = 'none' } = config
  const patterns = { ...config.rank_pattern, ...config.alpha_pattern }
  if (kind !== 'LORA' || dora || bias !== 'none' || Object.keys(patterns).length > 0 || !r || alpha === undefined)
    throw new SteepestError('FORMAT', {
      who,
      rule: 'plain LoRA of one rank is added to weights: no DoRA, no biases, no patterns',
      got: JSON.stringify({ peft_type: kind, r, lora_alpha: alpha, use_dora: dora, bias, ...patterns }),
    })
  const scale = alpha / (rooted ? Math.sqrt(r) : r)
  const weights = parameters(model)
  const file = await openSafetensors(join(dir, 'adapter_model.safetensors'))
  try {
    const read = ({ name, shape }: { name: string; shape: readonly number[] }, dtype: DType) =>
      loadTensor({ shape, dtype }, (take, as) => file.readPieces(name, take, as))
    const changed: Record<string, Tensor> = {}
    for (const stored of file.tensors.values()) {
      const [, layer, half] = LORA.exec(stored.name) ?? []
      if (half === 'B') continue
      const own = ownName(model, layer ? `${layer}.weight` : stored.name.replace(/^base_model\.model\./, ''))
      const weight = weights[own]
      const other = layer && file.tensors.get(`base_model.model.${layer}.lora_B.weight`)
      if (!weight || (layer && !other))
        throw new SteepestError('FORMAT', {
          who: dir,
          rule: 'every addition must have both its halves and belong to a weight of the model',
          got: stored.name,
        })
      const wide = weight.dtype === 'float64' ? 'float64' : 'float32'
      let value = await read(stored, wide)
      if (other) {
        const product = mul(matmul(await read(other, wide), value), scale)
        const delta = isTurned(model, own) ? transpose(product) : product
        if (delta.shape.join() === weight.shape.join()) value = add(cast(weight, wide), delta)
        else value = delta
      }
      if (value.shape.join() !== weight.shape.join())
        throw new SteepestError('SHAPE', {
          who: `${dir}: ${stored.name}`,
          rule: `the model has ${showShape(weight.shape)}`,
          got: showShape(value.shape),
          fix: 'Name the model that the additions were learned on',
        })
      changed[own] = cast(value, weight.dtype)
    }
    return withTensors(model, changed)
  } finally {
    await file.close()
  }
}
