// A program of bench/finetune.mjs by steepest: prints a line of JSON with the time of each step, the peak of the process and the losses.
import { native } from '../../dist/addon.js'
import { matmul, ones, reshape, slice, stack, sum } from '../../dist/index.js'
import { lora } from '../../dist/memory/index.js'
import { Bert, GPT2, Llama, loadModel, saveModel } from '../../dist/models/index.js'
import { parameters } from '../../dist/nn/module.js'
import { adamw, noDecay } from '../../dist/optim/index.js'
import { train } from '../../dist/train/train.js'
import { tokensOf } from '../tokens.mjs'
import { resident } from '../resident.mjs'

const options = JSON.parse(process.argv[2])
const { kind, layers, width, heads, kvHeads, hidden, vocab, batch, context, steps, threads, how, dtype, folder } =
  options
native().threads(threads)

const sizes = { vocabSize: vocab, context, layers, heads, width, dtype }
const MODELS = {
  gpt2: () => new GPT2(sizes),
  tiny: () => new GPT2(sizes),
  llama: () => new Llama({ ...sizes, kvHeads, hidden }),
  bert: () =>
    new Bert({
      ...{ vocabSize: vocab, positions: 512, types: 2, layers, heads, width, hidden: 4 * width, activation: 'gelu' },
      ...{ eps: 1e-12, dropout: 0, padId: 0, task: 'sequence', classes: 2, problem: 'single', initializerRange: 0.02 },
      ...{ dtype, seed: 0 },
    }),
}

// Threads and libraries are there before the model.
await matmul(ones([64, 64]), ones([64, 64])).read()
const before = resident('VmRSS')
const done = (more) => console.log(JSON.stringify({ peak: resident('VmHWM') - before, ...more }))

if (kind === 'write') {
  await saveModel(folder, new Llama({ vocabSize: vocab, context: 1024, layers, heads, width }))
  done({ seconds: [0] })
} else if (kind === 'load') {
  const began = performance.now()
  const loaded = Object.values(parameters(await loadModel(folder)))
  // Pages of a file that is mapped are read when somebody looks at them.
  const looks = loaded.map((t) => sum(slice(reshape(t, [-1]), [[0, t.size, 1024]])))
  await stack(looks).read()
  done({ seconds: [(performance.now() - began) / 1000] })
} else {
  const base = MODELS[kind]()
  const model = how === 'lora' ? lora(base, { rank: 16, alpha: 32, train: /^classifier\.|pooler/ }) : base
  function* data() {
    for (let step = 0; ; step++) {
      const [inputIds, targets] = tokensOf(step, batch, context)
      const shape = [batch, context]
      yield kind === 'bert'
        ? {
            inputIds: { data: inputIds, shape },
            labels: Int32Array.from({ length: batch }, (_, i) => targets[i * context] % 2),
          }
        : { inputIds: { data: inputIds, shape }, targets: { data: targets, shape } }
    }
  }
  const optimizer = adamw({ lr: 3e-4, weightDecay: 0.1, groups: [noDecay] })
  const [losses, seconds] = [[], []]
  for await (const event of train(model, data(), { optimizer, steps, clip: 1 })) {
    if (event.type !== 'step') continue
    losses.push(event.loss)
    seconds.push(event.msPerStep / 1000)
  }
  // The first steps plan and warm up.
  done({ seconds: seconds.slice(Math.min(2, seconds.length - 1)), losses })
}
