import { models, nn, type optim, type Tensor } from 'steepest'
import { type CharText, VOCABULARY } from './chars.js'
import { type Fitted, learn } from './learn.js'

export type Weights = Record<string, Tensor>

/** A transformer of one layer on characters: some 70,000 weights. */
export const charModel = (seed: number, context: number): models.GPT2 =>
  new models.GPT2({ vocabSize: VOCABULARY, context, layers: 1, heads: 4, width: 64, seed })

/** What the model says of a batch with these weights. */
export const outputsOf = (model: models.GPT2) => (weights: Weights, batch: models.TokenBatch) =>
  nn.withTensors(model, weights).loss(batch, new nn.Context())

/** Trains a model on text, and gives its loss on the test windows in nats per character. */
export async function trainChars(
  model: models.GPT2,
  text: CharText,
  optimizer: optim.Optimizer,
  steps: number,
  seed = 0,
): Promise<Fitted<Weights> & { test: number }> {
  const outputs = outputsOf(model)
  const loss = (weights: Weights, batch: models.TokenBatch) => outputs(weights, batch).loss
  const fitted = await learn({ params: nn.parameters(model), loss, optimizer, steps, batchOf: text.batch, seed })
  return { ...fitted, test: await loss(fitted.params, text.test).item() }
}
