import type { OptionSpec, OptionsOf } from '../spec.js'

/** The options of fine-tuning, as `trainOptions` are those of training. */
// biome-ignore format: an option is a line
export const finetuneOptions = [
  { key: 'model', type: 'text', group: 'data', doc: 'Hugging Face folder of the model', value: 'DIR' },
  { key: 'data', type: 'text', group: 'data', doc: 'rows to learn: .jsonl, .csv, .tsv, .parquet or .txt', value: 'FILE' },
  { key: 'validationData', type: 'text', group: 'data', doc: 'rows to validate on', chosen: 'a share of the data', value: 'FILE' },
  { key: 'validation', type: 'number', above: 0, max: 0.5, default: 0.1, group: 'data', doc: 'share of the rows that is held back for validation' },
  { key: 'context', type: 'integer', min: 8, max: 1_000_000, group: 'data', doc: 'longest row in tokens', chosen: 'what the data needs, at most 1024' },
  { key: 'learnPrompts', type: 'switch', default: false, group: 'data', doc: 'learn prompts too, not answers only' },
  { key: 'showData', type: 'switch', default: false, group: 'data', doc: 'print some rows with what of them is learned, and stop' },

  { key: 'epochs', type: 'number', above: 0, default: 3, group: 'run', doc: 'times that every row is seen' },
  { key: 'steps', type: 'integer', min: 1, group: 'run', doc: 'steps of the whole run', chosen: 'by the epochs' },
  { key: 'batch', type: 'integer', min: 1, max: 1_000_000, default: 8, group: 'run', doc: 'rows in a micro-batch' },
  { key: 'accumulate', type: 'integer', min: 1, max: 100_000, default: 1, group: 'run', doc: 'micro-batches in a step' },
  { key: 'dropout', type: 'number', min: 0, max: 0.99, default: 0, group: 'run', doc: 'share of activations that is dropped' },
  { key: 'dtype', type: 'choice', choices: ['float32', 'bfloat16'], group: 'run', doc: 'numbers that the model computes with', chosen: 'those of the folder' },
  { key: 'seed', type: 'integer', min: 0, max: 4_294_967_295, default: 1, group: 'run', doc: 'seed of everything that is random' },
  { key: 'threads', type: 'integer', min: 1, max: 1024, group: 'run', doc: 'threads; the numbers do not depend on it', chosen: 'all cores' },
  { key: 'device', type: 'choice', choices: ['cpu', 'cuda', 'auto'], default: 'cpu', group: 'run', doc: 'what computes: this machine, its NVIDIA GPU, or the GPU where there is one' },
  { key: 'memory', type: 'text', group: 'run', doc: 'most memory of the run, such as 3GB', chosen: 'that of this machine', value: 'SIZE' },
  { key: 'allow', type: 'text', group: 'run', doc: 'what may be done to fit into it, with commas: recompute, states8bit, activations, sampled, lowrank, blocks', chosen: 'what changes no number', value: 'LIST' },
  { key: 'stopAfter', type: 'integer', min: 1, group: 'run', doc: 'step to stop after, saved, as Ctrl+C would' },
  { key: 'patience', type: 'integer', min: 1, group: 'run', doc: 'evaluations without a better loss before the run stops', chosen: 'never' },

  { key: 'lora', type: 'integer', min: 1, max: 65_536, group: 'method', doc: 'rank of additions to the weights, which alone are learned', chosen: 'all weights are learned' },
  { key: 'loraAlpha', type: 'number', above: 0, group: 'method', doc: 'the additions count alpha / rank', chosen: 'twice the rank' },
  { key: 'sampled', type: 'number', above: 0, max: 1, group: 'method', doc: 'share of the rows that weight gradients are made of (WTA-CRS)', chosen: 'all' },
  { key: 'lowrank', type: 'choice', choices: ['galore', 'fira', 'frugal', 'apollo', 'badam'], group: 'method', doc: 'where the states of the optimizer live', chosen: 'on all weights' },
  { key: 'rank', type: 'integer', min: 1, max: 65_536, default: 64, group: 'method', doc: 'rank of galore, fira and apollo' },

  { key: 'optimizer', type: 'text', default: 'adamw', group: 'optimizer', doc: 'update rule, by name', value: 'NAME' },
  { key: 'lr', type: 'number', above: 0, default: 5e-5, group: 'optimizer', doc: 'learning rate at the top of the schedule' },
  { key: 'warmup', type: 'integer', min: 0, group: 'optimizer', doc: 'steps in which the learning rate rises', chosen: 'a twentieth of the steps' },
  { key: 'weightDecay', type: 'number', min: 0, default: 0.01, group: 'optimizer', doc: 'decay of the weight matrices' },
  { key: 'clip', type: 'number', above: 0, default: 1, group: 'optimizer', doc: 'largest norm of the whole gradient' },

  { key: 'out', type: 'text', group: 'output', doc: 'run folder; the tuned model is in its `model`', chosen: 'runs/ and the name of the data', value: 'DIR' },
  { key: 'resume', type: 'text', group: 'output', doc: 'checkpoint to go on from, to the bit', value: 'DIR' },
  { key: 'logEvery', type: 'integer', min: 1, default: 10, group: 'output', doc: 'steps between two lines where there is no terminal' },
  { key: 'evalEvery', type: 'integer', min: 1, group: 'output', doc: 'steps between two evaluations', chosen: 'a tenth of the steps' },
  { key: 'saveEvery', type: 'integer', min: 1, group: 'output', doc: 'steps between two checkpoints', chosen: 'at every evaluation' },
  { key: 'keep', type: 'integer', min: 1, default: 1, group: 'output', doc: 'last checkpoints that are kept, beside the best' },
] as const satisfies readonly OptionSpec[]

/** What a user may say about fine-tuning. */
export type FinetuneOptions = OptionsOf<typeof finetuneOptions>
