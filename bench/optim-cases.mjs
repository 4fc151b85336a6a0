// What `npm run bench -- optim` times: every built-in optimizer, and beside each the peers that have it.

const torch = (name, options = {}, hows = ['fused', 'foreach', 'compiled']) =>
  hows.map((how) => ({ name: `PyTorch ${how}`, what: { torch: name, how, options } }))
const optax = (expression) => [{ name: 'optax', what: { optax: expression } }]
const author = (module, name, options = {}) => [{ name: `${module} ${name}`, what: { module, class: name, options } }]

/** Passes over memory, each `read:written in place`; `reads` counts the gradient. */
const one = (states) => [`1:${1 + states}`]

/**
 * By optimizer (and variant): options, the passes that its formula needs over arrays of the parameters' size, and peers. One whose passes are not
 * given is bound by something else than memory.
 */
const KNOWN = {
  sgd: { passes: one(0), peers: [...torch('SGD'), ...optax('optax.sgd(1e-4)')] },
  'sgd, momentum': {
    options: { momentum: 0.9 },
    passes: one(1),
    peers: [...torch('SGD', { momentum: 0.9 }), ...optax('optax.sgd(1e-4, momentum=0.9)')],
  },
  adam: { passes: one(2), peers: [...torch('Adam'), ...optax('optax.adam(1e-4)')] },
  'adam, amsgrad': { options: { amsgrad: true }, passes: one(3), peers: torch('Adam', { amsgrad: true }) },
  adamw: { passes: one(2), written: true, peers: [...torch('AdamW'), ...optax('optax.adamw(1e-4)')] },
  'adamw, 8-bit states': {
    options: { states: '8bit' },
    peers: author('bitsandbytes.optim', 'AdamW8bit'),
  },
  adamwHf: { passes: one(2), peers: [] },
  lion: {
    passes: one(1),
    written: true,
    peers: [...author('lion_pytorch', 'Lion'), ...optax('optax.lion(1e-4)'), ...author('timm.optim', 'Lion')],
  },
  'lion, 8-bit states': { options: { states: '8bit' }, peers: author('bitsandbytes.optim', 'Lion8bit') },
  adagrad: { passes: one(1), peers: [...torch('Adagrad'), ...optax('optax.adagrad(1e-4)')] },
  adabelief: {
    passes: one(2),
    peers: [
      ...author('adabelief_pytorch', 'AdaBelief', { print_change_log: false }),
      ...optax('optax.adabelief(1e-4)'),
    ],
  },
  diffgrad: { passes: one(3), peers: author('torch_optimizer', 'DiffGrad') },
  adamp: { passes: ['2:2', '3:1'], peers: author('adamp', 'AdamP') },
  sgdp: { passes: ['2:1', '1:2'], options: { momentum: 0.9 }, peers: author('adamp', 'SGDP', { momentum: 0.9 }) },
  lamb: {
    options: { maxGradNorm: 0 },
    passes: ['2:2', '2:1'],
    peers: [...author('timm.optim', 'Lamb', { max_grad_norm: null }), ...optax('optax.lamb(1e-4)')],
  },
  lars: {
    options: { momentum: 0.9 },
    passes: ['2:0', '1:2'],
    peers: [...author('timm.optim', 'Lars', { momentum: 0.9 }), ...optax('optax.lars(1e-4)')],
  },
  signSgd: { passes: one(0), peers: optax('optax.sign_sgd(1e-4)') },
  'signSgd, momentum': { options: { momentum: 0.9 }, passes: one(1), peers: [] },
  adafactor: { peers: [...torch('Adafactor', {}, ['foreach']), ...optax('optax.adafactor(1e-4)')] },
  adagradNorm: { peers: [] },
  lionK: { peers: [] },
  normalizedGd: { peers: [] },
  scheduleFreeAdamw: {
    passes: one(2),
    peers: [...author('schedulefree', 'AdamWScheduleFree'), ...optax('contrib.schedule_free_adamw(1e-4)')],
  },
  muon: { matrices: true, peers: [...author('muon', 'SingleDeviceMuon'), ...optax('contrib.muon(1e-4)')] },
  // Its first step takes the eigenvectors of every axis, of 3,072 numbers too.
  soap: { matrices: true, layer: true, peers: author('heavyball', 'SOAP') },
}

/** The cases for optimizers of these names; those that nobody wrote a line for come without peers. */
export function casesOf(names) {
  const of = (name) => Object.entries(KNOWN).filter(([label]) => label.split(',')[0] === name)
  return names.flatMap((name) => {
    const known = of(name)
    return (known.length > 0 ? known : [[name, { peers: [] }]]).map(([label, c]) => ({
      label,
      name,
      options: {},
      ...c,
    }))
  })
}

/** The twelve tensors of a layer of GPT-2. */
export function layerShapes(width = 768) {
  return [
    [width],
    [width],
    [width, 3 * width],
    [3 * width],
    [width, width],
    [width],
    [width],
    [width],
    [width, 4 * width],
    [4 * width],
    [4 * width, width],
    [width],
  ]
}

/** GPT-2's 148 tensors. */
export function gpt2Shapes(width = 768) {
  const layers = Array.from({ length: 12 }, () => layerShapes(width)).flat()
  return [[50257, width], [1024, width], ...layers, [width], [width]]
}
