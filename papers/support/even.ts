import { nn, type Tensor } from 'steepest'

/** Every weight at the nearest of four evenly spaced numbers between the extremes of its matrix. */
export function evenly<M>(model: M): M {
  const all = Object.entries(nn.parameters(model)).filter(([name]) => name.endsWith('weight'))
  const round = (w: Tensor) => {
    const [low, step] = [w.min(), w.max().sub(w.min()).div(3)]
    return w.sub(low).div(step).round().mul(step).add(low)
  }
  return nn.withTensors(model, Object.fromEntries(all.map(([name, w]) => [name, round(w)])))
}
