/** Tokens of a step, the same in every program: [inputs, targets], each [batch · context] of 997 kinds. peers/common.py has the same. */
export function tokensOf(step, batch, context) {
  let state = 12345 + step
  const next = () => {
    state = Number((1103515245n * BigInt(state) + 12345n) % 2147483648n)
    return (state >> 16) % 997
  }
  const inputs = new Int32Array(batch * context)
  const targets = new Int32Array(batch * context)
  for (let row = 0; row < batch; row++) {
    let token = next()
    for (let t = 0; t < context; t++) {
      inputs[row * context + t] = token
      token = next() % 4 === 0 ? next() : (token * 31 + 7) % 997
      targets[row * context + t] = token
    }
  }
  return [inputs, targets]
}
