// The perceptrons of bench/works.mjs in the JavaScript libraries: `training_js.mjs WORK THREADS FOLDER LIBRARY`, from the folder that has them.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { lateness } from '../lateness.mjs'
import { BATCHES, batchOf, WORKS } from '../works.mjs'

const [name, threads, folder, library, home] = process.argv.slice(2)
const work = WORKS[name]
if (work.kind !== 'mlp') throw new Error('no such model is written for it here')
const require = createRequire(join(home, 'package.json'))
const load = (path) => import(pathToFileURL(require.resolve(path)).href)

/** The tensors of a safetensors file of float32 numbers. */
function weights(path) {
  const bytes = readFileSync(path)
  const size = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + size))
  return Object.entries(header).flatMap(([key, { shape, data_offsets: at }]) =>
    at
      ? [
          [
            key,
            {
              shape,
              data: new Float32Array(
                bytes.buffer.slice(bytes.byteOffset + 8 + size + at[0], bytes.byteOffset + 8 + size + at[1]),
              ),
            },
          ],
        ]
      : [],
  )
}
const file = Object.fromEntries(weights(join(folder, 'model.safetensors')))
const layers = work.widths.slice(1).map((_, i) => ['weight', 'bias'].map((part) => file[`net.layers.${i}.${part}`]))
const batches = Array.from({ length: BATCHES }, (_, n) => batchOf(work, n))

async function tensorflow() {
  const tf = await load('@tensorflow/tfjs')
  const wasm = await load('@tensorflow/tfjs-backend-wasm')
  wasm.setWasmPaths(join(home, 'node_modules/@tensorflow/tfjs-backend-wasm/dist/'))
  wasm.setThreadsCount(Number(threads))
  await tf.setBackend('wasm')
  await tf.ready()
  const variables = layers.map((pair) => pair.map(({ data, shape }) => tf.variable(tf.tensor(data, shape))))
  const data = batches.map(({ x, labels }) => [
    tf.tensor(x.data, x.shape),
    tf.oneHot(tf.tensor1d(labels.data, 'int32'), 10),
  ])
  const optimizer = tf.train.adam(work.lr, 0.9, 0.999, 1e-8)
  return {
    version: `tfjs ${tf.version.tfjs}, wasm`,
    async step(n) {
      const [x, y] = data[n % BATCHES]
      const loss = optimizer.minimize(() => {
        const logits = variables.reduce((h, [w, b], i) => tf.add(tf.matMul(i ? tf.relu(h) : h, w, false, true), b), x)
        return tf.losses.softmaxCrossEntropy(y, logits)
      }, true)
      const [value] = await loss.data()
      loss.dispose()
      return value
    },
  }
}

async function jaxJs() {
  const { init, defaultDevice, jit, valueAndGrad, nn, numpy: np, tree } = await load('@jax-js/jax')
  await init('wasm')
  defaultDevice('wasm')
  const { version } = JSON.parse(readFileSync(join(home, 'node_modules/@jax-js/jax/package.json'), 'utf8'))
  const lossOf = (params, x, y) => {
    const logits = params.reduce((h, [w, b], i) => np.matmul(i ? nn.relu(h) : h, np.transpose(w)).add(b), x)
    return nn
      .logSoftmax(logits)
      .mul(y)
      .sum()
      .mul(-1 / work.batch)
  }
  const both = valueAndGrad(lossOf)
  const update = jit((params, m, v, size, root, x, y) => {
    const [loss, grads] = both(tree.ref(params), x, y)
    const m2 = tree.map((a, g) => a.mul(0.9).add(g.mul(0.1)), m, tree.ref(grads))
    const v2 = tree.map((a, g) => a.mul(0.999).add(g.ref.mul(g).mul(0.001)), v, grads)
    const next = tree.map(
      (p, a, b) => p.sub(a.mul(size.ref).div(np.sqrt(b).mul(root.ref).add(1e-8))),
      params,
      tree.ref(m2),
      tree.ref(v2),
    )
    size.dispose()
    root.dispose()
    return [next, m2, v2, loss]
  })
  let state = [layers.map((pair) => pair.map(({ data, shape }) => np.array(data).reshape(shape)))]
  const zeros = () => layers.map((pair) => pair.map(({ shape }) => np.zeros(shape)))
  state.push(zeros(), zeros())
  const data = batches.map(({ x, labels }) => [np.array(x.data).reshape(x.shape), nn.oneHot(np.array(labels.data), 10)])
  return {
    version: `jax-js ${version}, wasm`,
    async step(n) {
      const [x, y] = data[n % BATCHES]
      const t = n + 1
      const size = np.array(work.lr / (1 - 0.9 ** t))
      const root = np.array(1 / Math.sqrt(1 - 0.999 ** t))
      const [p, m, v, loss] = update(...state, size, root, x.ref, y.ref)
      state = [p, m, v]
      return (await loss.data())[0]
    },
  }
}

/** The arrays of mlx have no owner to name; its lazy graph is evaluated once a step. */
async function mlx() {
  const { core: mx, nn } = await load('@frost-beta/mlx')
  const { version } = JSON.parse(readFileSync(join(home, 'node_modules/@frost-beta/mlx/package.json'), 'utf8'))
  let params = layers.flat().map(({ data, shape }) => mx.reshape(mx.array([...data], mx.float32), shape))
  let [m, v] = [0, 1].map(() => params.map((p) => mx.zeros(p.shape)))
  const data = batches.map(({ x, labels }) => [
    mx.reshape(mx.array([...x.data], mx.float32), x.shape),
    mx.array([...labels.data], mx.int32),
  ])
  const lossOf = (x, y, ...p) => {
    let h = x
    for (let i = 0; i < p.length; i += 2) h = mx.add(mx.matmul(i ? nn.relu(h) : h, mx.transpose(p[i])), p[i + 1])
    return nn.losses.crossEntropy(h, y, undefined, -1, 0, 'mean')
  }
  const both = mx.valueAndGrad(
    lossOf,
    params.map((_, i) => i + 2),
  )
  return {
    version: `@frost-beta/mlx ${version}`,
    async step(n) {
      const [x, y] = data[n % BATCHES]
      const t = n + 1
      const [loss, grads] = both(x, y, ...params)
      m = m.map((a, i) => mx.add(mx.multiply(a, 0.9), mx.multiply(grads[i], 0.1)))
      v = v.map((a, i) => mx.add(mx.multiply(a, 0.999), mx.multiply(mx.square(grads[i]), 0.001)))
      const [size, root] = [work.lr / (1 - 0.9 ** t), 1 / Math.sqrt(1 - 0.999 ** t)]
      params = params.map((p, i) =>
        mx.subtract(p, mx.divide(mx.multiply(m[i], size), mx.add(mx.multiply(mx.sqrt(v[i]), root), 1e-8))),
      )
      mx.eval(params, m, v, loss)
      return loss.item()
    },
  }
}

const { version, step } = await { tfjs: tensorflow, 'jax-js': jaxJs, mlx }[library]()
let done = 0
const start = performance.now() / 1000
const losses = [await step(done++)]
console.log(`ready ${JSON.stringify({ version, start, first: performance.now() / 1000, losses })}`)
for await (const line of createInterface({ input: process.stdin })) {
  const late = lateness()
  const began = performance.now()
  const losses = []
  for (let i = 0; i < Number(line); i++) losses.push(await step(done++))
  console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000, losses, late: late() }))
}
