import { memory, optim } from '../../lib/index.js'
import { FROZEN } from './training.js'

export interface MethodCase {
  name: string
  make: (lr?: number) => optim.Optimizer
}

const adamw = (lr: number) => optim.adamw({ lr, weightDecay: 0.05, groups: FROZEN })
const small = { rank: 3, updateGap: 3 }
const space = { rank: 3, updateGap: 3, scale: 1 }

/** Every method in most of its forms: all of them must train, accumulate, resume and give the same bits. */
export const METHODS: readonly MethodCase[] = [
  { name: 'galore', make: (lr = 0.02) => memory.galore(adamw(lr), space) },
  { name: 'galore svd', make: (lr = 0.02) => memory.galore(adamw(lr), { ...space, method: 'svd', stagger: false }) },
  {
    name: 'galore full reset',
    make: (lr = 0.02) => memory.galore(adamw(lr), { ...space, projType: 'full', states: 'reset' }),
  },
  {
    name: 'galore rotate',
    make: (lr = 0.02) => memory.galore(adamw(lr), { ...space, projType: 'reverseStd', states: 'rotate' }),
  },
  {
    name: 'galore of coupled Adam',
    make: (lr = 0.02) => memory.galore(optim.adam({ lr, weightDecay: 0.05, groups: FROZEN }), space),
  },
  { name: 'galore of LAMB', make: (lr = 0.02) => memory.galore(optim.lamb({ lr, groups: FROZEN }), space) },
  { name: 'galore of adafactor', make: (lr = 0.02) => memory.galore(optim.adafactor({ lr, groups: FROZEN }), space) },
  { name: 'fira', make: (lr = 0.02) => memory.fira(adamw(lr), { ...small, alpha: 1 }) },
  {
    name: 'fira of both sides',
    make: (lr = 0.02) => memory.fira(adamw(lr), { ...small, projType: 'full', scaling: 'matrix' }),
  },
  {
    name: 'fira as its authors have it',
    make: (lr = 0.02) =>
      memory.fira(optim.adamwHf({ lr, groups: FROZEN }), { ...small, residual: 'code', method: 'svd', stagger: false }),
  },
  {
    name: 'fira by matrix, of Lion',
    make: (lr = 0.02) =>
      memory.fira(optim.lion({ lr, groups: FROZEN }), { ...small, scaling: 'matrix', states: 'rotate', limiter: null }),
  },
  { name: 'frugal', make: (lr = 0.02) => memory.frugal(adamw(lr), { density: 0.4, updateGap: 3 }) },
  {
    name: 'frugal by rows, of Lion, kept',
    make: (lr = 0.02) =>
      memory.frugal(optim.lion({ lr, weightDecay: 0.1, groups: FROZEN }), {
        choice: 'rows',
        density: 0.5,
        updateGap: 3,
        outside: 'sgd',
        reset: false,
      }),
  },
  {
    name: 'frugal by elements',
    make: (lr = 0.02) => memory.frugal(adamw(lr), { choice: 'elements', updateGap: 2, lrScale: 0.7 }),
  },
  {
    name: 'frugal by svd',
    make: (lr = 0.02) => memory.frugal(adamw(lr), { choice: 'svd', updateGap: 3, outside: 'sgd' }),
  },
  {
    name: 'frugal by random bases, of LAMB',
    make: (lr = 0.02) =>
      memory.frugal(optim.lamb({ lr, groups: FROZEN }), {
        choice: 'random',
        density: 0.4,
        updateGap: 2,
        outsideLrScale: 0.5,
      }),
  },
  { name: 'frugal without states', make: (lr = 0.02) => memory.frugal(adamw(lr), { density: 0, updateGap: 4 }) },
  ...(['random', 'ascending', 'descending', 'mirror'] as const).map((order) => ({
    name: `frugal by blocks, ${order}`,
    make: (lr = 0.02) => memory.frugal(adamw(lr), { choice: 'blocks', density: 0.4, updateGap: 2, order }),
  })),
  {
    name: 'frugal by blocks, kept, of LAMB',
    make: (lr = 0.02) =>
      memory.frugal(optim.lamb({ lr, groups: FROZEN }), {
        choice: 'blocks',
        density: 0.7,
        updateGap: 2,
        reset: false,
        outside: 'none',
        lrScale: 0.8,
      }),
  },
  {
    name: 'badam',
    make: (lr = 0.02) => memory.badam(adamw(lr), { blocks: [/^first/, /^(second|third)/], switchEvery: 2 }),
  },
  {
    name: 'badam of adafactor, downwards',
    make: (lr = 0.02) =>
      memory.badam(optim.adafactor({ lr: 2 * lr, groups: FROZEN }), {
        blocks: [['first.weight'], ['second.weight'], ['third.weight', 'head.weight']],
        order: 'descending',
        switchEvery: 2,
      }),
  },
  { name: 'apollo', make: (lr = 0.02) => memory.apollo(adamw(lr), small) },
  {
    name: 'apollo mini as its authors have it',
    make: (lr = 0.02) =>
      memory.apolloMini(optim.adamwHf({ lr, groups: FROZEN }), { scale: 4, updateGap: 3, stagger: false }),
  },
  { name: 'qgalore', make: (lr = 0.02) => memory.qgalore(adamw(lr), space) },
  {
    name: 'galore of both sides in 8 bits, rotated',
    make: (lr = 0.02) => memory.galore(adamw(lr), { ...space, projType: 'full', basisBits: 8, states: 'rotate' }),
  },
  { name: 'adalomo', make: (lr = 0.02) => memory.adalomo({ lr: 2 * lr, groups: FROZEN }) },
  {
    name: 'galore in 8 bits, reset',
    make: (lr = 0.02) =>
      memory.galore(optim.adamw({ lr, groups: FROZEN, states: '8bit', min8bitSize: 8 }), { ...space, states: 'reset' }),
  },
  {
    name: 'badam in 8 bits',
    make: (lr = 0.02) =>
      memory.badam(optim.adamw({ lr, groups: FROZEN, min8bitSize: 8 }), {
        blocks: [/^first/, /^(second|third)/],
        switchEvery: 2,
      }).in8bits!(),
  },
]
