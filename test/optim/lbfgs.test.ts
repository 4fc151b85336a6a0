import { describe, expect, test } from 'vitest'
import { add, compile, mul, optim, slice, square, sub, sum, tensor, type Tensor } from '../../lib/index.js'
import { worst } from './reference.js'

const losses: Record<string, (x: Tensor) => Tensor> = {
  rosen(x) {
    const n = x.shape[0]
    const [a, b] = [slice(x, [[0, n - 1]]), slice(x, [[1, n]])]
    return sum(add(square(sub(1, a)), mul(square(sub(b, square(a))), 100)))
  },
  quad(x) {
    const n = x.shape[0]
    const a = tensor(Float64Array.from({ length: n }, (_, i) => 10 ** (-2 + (4 * i) / (n - 1))))
    return sub(mul(sum(mul(a, square(x))), 0.5), sum(x))
  },
}

/** Where torch.optim.LBFGS 2.15 is after three steps, in float64. */
const cases: [loss: string, from: number[], options: optim.LbfgsOptions, after: number[]][] = [
  ['rosen', [-1.2, 1.0], { historySize: 3, maxIter: 7, lr: 1 }, [0.2691937957594721, 0.06520286051796886]],
  ['rosen', [-1.2, 1.0], { maxEval: 4, lr: 1 }, [-0.8802131649658734, 0.7274772060719978]],
  ['rosen', [-1.2, 1.0], { maxIter: 5, lr: 0.3 }, [-1.0124503022426208, 1.018421093975948]],
  ['rosen', [-1.2, 1.0], { maxIter: 4, lineSearch: 'none', lr: 0.01 }, [-1.1792554727204612, 1.0116385670033006]],
  [
    'rosen',
    [-1.2, 1.0, 0.5, -0.3, 2.0, 1.0],
    { historySize: 3, maxIter: 7, lr: 1 },
    [
      -0.08775387984756634, 0.013295230018942743, 0.02818229635804176, 0.01419260993810309, 0.008908916691333615,
      -0.004971721489143889,
    ],
  ],
  [
    'rosen',
    [-1.2, 1.0, 0.5, -0.3, 2.0, 1.0],
    { maxEval: 4, lr: 1 },
    [
      -0.4254589061733836, 0.17739874266685282, 0.041820478824944295, 0.0016382699441074983, 0.057590124573551456,
      -0.024583087247244145,
    ],
  ],
  [
    'rosen',
    [-1.2, 1.0, 0.5, -0.3, 2.0, 1.0],
    { maxIter: 5, lr: 0.3 },
    [
      -0.32621443988136156, 0.030871257100687034, -0.09759128697739892, -0.23802731205599534, 0.13674284202990708,
      -0.17316825694191582,
    ],
  ],
  [
    'rosen',
    [-1.2, 1.0, 0.5, -0.3, 2.0, 1.0],
    { maxIter: 4, lineSearch: 'none', lr: 0.01 },
    [
      -1.1812189759939713, 0.9856237267940523, 0.4935145192907186, -0.31642623557262817, 1.9311677433156405,
      1.0294515190473867,
    ],
  ],
  [
    'quad',
    [1.0, -2.0, 0.5, 3.0, -1.0, 0.2, 0.7],
    { historySize: 3, maxIter: 7, lr: 1 },
    [
      9.249389172348632, 6.524804423000912, 5.528867742104878, 2.370897999945945, -0.03613762487835035,
      0.1032816018335758, -0.08199285165725373,
    ],
  ],
  [
    'quad',
    [1.0, -2.0, 0.5, 3.0, -1.0, 0.2, 0.7],
    { maxIter: 5, lr: 0.3 },
    [
      1.8752906205457949, -1.0442979609316794, 1.2418073608516145, 1.6806715072160938, 0.4650865718479158,
      0.008596363448977186, -0.023320796339225198,
    ],
  ],
  [
    'quad',
    [1.0, -2.0, 0.5, 3.0, -1.0, 0.2, 0.7],
    { maxIter: 4, lineSearch: 'none', lr: 0.01 },
    [
      1.0078515866012694, -1.9913447640555024, 0.5070219937059357, 2.9847159941784778, -0.9622228470102665,
      0.18686453492202681, 0.6179105466215327,
    ],
  ],
]

const at = (numbers: number[]) => ({ x: tensor(Float64Array.from(numbers)) })

describe('L-BFGS', () => {
  test.each(cases)('on %s from %j with %j goes where torch goes', async (loss, from, options, after) => {
    const opt = optim.lbfgs(options)
    let params = at(from)
    let state = opt.init(params)
    const step = compile((p: typeof params, s: typeof state) =>
      opt.step!(
        optim.objective((q: typeof params) => losses[loss](q.x)),
        p,
        s,
      ),
    )
    for (let t = 0; t < 3; t++) ({ params, state } = step(params, state))
    expect(worst(await params.x.read(), after)).toBeLessThan(1e-10)
  })

  test('gives the loss that the step began with, and stays where the gradient is zero', async () => {
    const opt = optim.lbfgs()
    const objective = optim.objective((p: ReturnType<typeof at>) => losses.rosen(p.x))
    const params = at([1, 1, 1])
    const next = opt.step!(objective, params, opt.init(params))
    expect(await next.loss.item()).toBe(0)
    expect([...(await next.params.x.read())]).toEqual([1, 1, 1])
    const away = at([-1.2, 1])
    expect(await opt.step!(objective, away, opt.init(away)).loss.item()).toBeCloseTo(24.2, 10)
  })

  test('says what it takes', () => {
    expect(() => optim.lbfgs({ clip: { norm: 1 } } as object)).toThrow('clip')
    expect(() => optim.lbfgs({ maxIter: 0 })).toThrow('`maxIter`')
    expect(() => optim.lbfgs({ lineSearch: 'armijo' as 'none' })).toThrow('`lineSearch`')
    expect(() => optim.lbfgs({ groups: [{ match: /x/, lrScale: 2 }] })).toThrow('one learning rate')
    const p = at([1, 2])
    expect(() => optim.lbfgs().update(p, p, optim.lbfgs().init(p))).toThrow('needs the objective')
  })
})
