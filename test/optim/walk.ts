import { optim } from '../../lib/index.js'

/** How an optimizer is tried: with which rates, and what it can not do. */
export interface Tried {
  /** @param valley whether it is for Rosenbrock's valley, whose curvature is in the hundreds */
  make(options?: optim.RuleOptions, valley?: boolean): optim.Optimizer
  /** Highest learning rate on problems whose curvature is about one. */
  rate: number
  /** The same for Rosenbrock's valley; by default the tenth. */
  valley?: number
  /** It looks at the layer that sees the data, so only models are tried. */
  needsData?: true
  /** All parameters have one learning rate. */
  oneRate?: true
}

type Options = optim.RuleOptions & Record<string, unknown>

const named = (name: string, rate: number, more: Omit<Partial<Tried>, 'make'> & { options?: object } = {}): Tried => {
  const { options, ...rest } = more
  return { make: (o) => optim.optimizerNamed(name, { ...options, ...o } as Options), rate, ...rest }
}

/** Every built-in optimizer, by its name. */
const plain: Record<string, Tried> = {
  sgd: named('sgd', 0.2, { valley: 0.001 }),
  adam: named('adam', 0.05, { valley: 0.05 }),
  adamw: named('adamw', 0.05, { valley: 0.05 }),
  adamwHf: named('adamwHf', 0.05, { valley: 0.05 }),
  lion: named('lion', 0.02, { valley: 0.02 }),
  adagrad: named('adagrad', 0.5, { valley: 0.3 }),
  adabelief: named('adabelief', 0.05, { valley: 0.05, options: { rectify: false } }),
  diffgrad: named('diffgrad', 0.05, { valley: 0.05 }),
  adamp: named('adamp', 0.05, { valley: 0.05 }),
  sgdp: named('sgdp', 0.1, { valley: 0.001 }),
  lamb: named('lamb', 0.02, { valley: 0.02 }),
  lars: named('lars', 1, { valley: 1, options: { trustCoeff: 0.02, alwaysAdapt: true } }),
  signSgd: named('signSgd', 0.02, { valley: 0.02 }),
  adafactor: named('adafactor', 0.1, { valley: 0.1 }),
  adagradNorm: named('adagradNorm', 1, { valley: 1 }),
  blockCoordinate: {
    make: (o, valley) =>
      optim.blockCoordinate(
        (valley
          ? { blockSize: 2, update: 'newton', ...o }
          : { blockSize: 3, lipschitz: undefined, ...o }) as optim.BlockCoordinateOptions,
      ),
    rate: 1,
    valley: 1,
    oneRate: true,
  },
  armijo: named('armijo', 2, { valley: 1 }),
  lbfgs: named('lbfgs', 1, { valley: 1, oneRate: true, options: { historySize: 5, maxIter: 4 } }),
  lionK: named('lionK', 0.02, { valley: 0.02 }),
  muon: named('muon', 0.05, { valley: 0.05, options: { auxiliary: { lr: 0.05 } } }),
  normalizedGd: named('normalizedGd', 0.05, { valley: 0.02 }),
  scheduleFreeAdamw: named('scheduleFreeAdamw', 0.1, { valley: 0.1 }),
  soap: named('soap', 0.05, { valley: 0.05 }),
  sophiaG: named('sophiaG', 0.02, { valley: 0.01 }),
  sophiaH: named('sophiaH', 0.02, { valley: 0.01 }),
}

const base = (o: optim.RuleOptions = {}) => optim.adamw({ lr: 0.05, ...o })
const wrapped = (wrap: (o: optim.Optimizer) => optim.Optimizer, more: Partial<Tried> = {}): Tried => ({
  make: (o) => wrap(base(o)),
  rate: 0.05,
  valley: 0.05,
  ...more,
})

/** Everything that gives an optimizer; a wrapper once around a plain rule. */
export const EVERY: Readonly<Record<string, Tried>> = {
  ...plain,
  adaptiveBatch: wrapped((o) => optim.adaptiveBatch(o, { test: 'augmented' })),
  asam: wrapped((o) => optim.asam(o, { rho: 0.01 })),
  averaged: wrapped((o) => optim.averaged(o, { decay: 0.9, warmup: true })),
  blockwise: wrapped((o) => optim.blockwise(o, { rule: 'cyclic', scaled: false })),
  gradientNoise: wrapped((o) => optim.gradientNoise(o, { eta: 1e-6 })),
  larc: wrapped(optim.larc),
  lookahead: wrapped(optim.lookahead),
  multiTask: wrapped((o) => optim.multiTask(o, { rho: 0.01 })),
  tract: wrapped((o) => optim.tract(o, { lambda: 1 }), { needsData: true }),
  surrogate: {
    make: (o, valley) => optim.surrogate(optim.sgd({ lr: 0.3, ...o }), { eta: valley ? 0.001 : 0.5, innerSteps: 4 }),
    rate: 0.3,
    valley: 0.0005,
  },
  sam: wrapped((o) => optim.sam(o, { rho: 0.01 })),
}

/** Functions of `optim` that give no optimizer. */
export const OTHERS = new Set([
  ...[
    'clipByGlobalNorm',
    'defineOptimizer',
    'forestBlock',
    'solveForest',
    'gaussNewton',
    'globalNorm',
    'gradientSpread',
    'hutchinson',
  ],
  ...['neededBatch', 'newtonSchulz'],
  ...['objective', 'optimizerNamed', 'schedule'],
])
