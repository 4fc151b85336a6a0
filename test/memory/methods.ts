import { memory, optim } from '../../lib/index.js'
import { FROZEN } from './training.js'

export interface MethodCase {
  name: string
  make: (lr?: number) => optim.Optimizer
}

const adamw = (lr: number) => optim.adamw({ lr, weightDecay: 0.05, groups: FROZEN })
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
]
