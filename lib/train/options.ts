import type { OptionSpec, OptionsOf } from './spec.js'

/**
 * The options of a training run: the one list from which the flags of `steepest train`, the keys of `steepest.json`, its
 * schema, the type `TrainOptions` and the help come.
 */
// biome-ignore format: an option is a line
export const trainOptions = [
  { key: 'file', type: 'text', group: 'data', doc: 'text to train on', chosen: 'text that is on this machine', value: 'FILE' },
  { key: 'tokenizer', type: 'text', group: 'data', doc: 'a tokenizer.json, or `bytes`', chosen: 'byte pairs trained on the text', value: 'FILE' },
  { key: 'vocab', type: 'integer', min: 257, max: 1_000_000, group: 'data', doc: 'entries of the byte-pair tokenizer that is trained', chosen: 'by the size of the text' },
  { key: 'validation', type: 'number', above: 0, max: 0.5, default: 0.1, group: 'data', doc: 'share of the text that is held back for validation' },

  { key: 'layers', type: 'integer', min: 1, max: 1000, group: 'model', doc: 'transformer blocks', chosen: 'for this machine' },
  { key: 'heads', type: 'integer', min: 1, max: 1024, group: 'model', doc: 'attention heads; they divide the width', chosen: 'for the width' },
  { key: 'width', type: 'integer', min: 1, max: 1_000_000, group: 'model', doc: 'numbers per token between the blocks', chosen: 'for this machine' },
  { key: 'context', type: 'integer', min: 1, max: 1_000_000, group: 'model', doc: 'tokens in a sequence', chosen: 'for this machine' },
  { key: 'dropout', type: 'number', min: 0, max: 0.99, default: 0, group: 'model', doc: 'share of activations that is dropped' },
  { key: 'dtype', type: 'choice', choices: ['float32', 'bfloat16'], default: 'float32', group: 'model', doc: 'numbers that the model computes with' },

  { key: 'steps', type: 'integer', min: 1, group: 'run', doc: 'steps of the whole run', chosen: 'about three minutes on this machine' },
  { key: 'batch', type: 'integer', min: 1, max: 1_000_000, group: 'run', doc: 'sequences in a micro-batch', chosen: 'for this machine' },
  { key: 'accumulate', type: 'integer', min: 1, max: 100_000, default: 1, group: 'run', doc: 'micro-batches in a step' },
  { key: 'memory', type: 'text', group: 'run', doc: 'memory that the run may take, such as 3GB; how it fits is chosen and said', chosen: 'as much as it takes', value: 'SIZE' },
  { key: 'allow', type: 'text', group: 'run', doc: 'methods that may change the numbers to fit into the memory, with commas between: states8bit, activations, sampled, lowrank, blocks', chosen: 'none', value: 'LIST' },
  { key: 'seed', type: 'integer', min: 0, max: 4_294_967_295, default: 1, group: 'run', doc: 'seed of everything that is random' },
  { key: 'threads', type: 'integer', min: 1, max: 1024, group: 'run', doc: 'threads; the numbers do not depend on it', chosen: 'all cores' },
  { key: 'device', type: 'choice', choices: ['cpu', 'cuda', 'auto'], default: 'cpu', group: 'run', doc: 'what computes: this machine, its NVIDIA GPU, or the GPU where there is one' },
  { key: 'stopAfter', type: 'integer', min: 1, group: 'run', doc: 'step to stop after, saved, as Ctrl+C would' },
  { key: 'patience', type: 'integer', min: 1, group: 'run', doc: 'evaluations without a better loss before the run stops', chosen: 'never' },
  { key: 'allowNonFinite', type: 'switch', default: false, group: 'run', doc: 'go on after a loss or gradient that is not finite, leaving out its update' },

  { key: 'optimizer', type: 'text', default: 'adamw', group: 'optimizer', doc: 'update rule, by name', value: 'NAME' },
  { key: 'lr', type: 'number', above: 0, group: 'optimizer', doc: 'learning rate at the top of the schedule', chosen: 'by optimizer and width' },
  { key: 'schedule', type: 'choice', choices: ['constant', 'linear', 'cosine', 'wsd', 'oneCycle'], default: 'cosine', group: 'optimizer', doc: 'course of the learning rate' },
  { key: 'warmup', type: 'integer', min: 0, group: 'optimizer', doc: 'steps in which the learning rate rises', chosen: 'a twentieth of the steps' },
  { key: 'weightDecay', type: 'number', min: 0, group: 'optimizer', doc: 'decay of the weight matrices', chosen: 'by optimizer' },
  { key: 'clip', type: 'number', above: 0, default: 1, group: 'optimizer', doc: 'largest norm of the whole gradient' },

  { key: 'profile', type: 'switch', default: false, group: 'output', doc: 'show where the time of the steps goes, by op and module, and write it as a Chrome trace, profile.json' },
  { key: 'out', type: 'text', group: 'output', doc: 'run folder', chosen: 'runs/ and the name of the text', value: 'DIR' },
  { key: 'resume', type: 'text', group: 'output', doc: 'run folder or checkpoint to go on from, to the bit', value: 'DIR' },
  { key: 'logEvery', type: 'integer', min: 1, default: 10, group: 'output', doc: 'steps between two lines where there is no terminal' },
  { key: 'evalEvery', type: 'integer', min: 1, group: 'output', doc: 'steps between two evaluations', chosen: 'a twentieth of the steps' },
  { key: 'saveEvery', type: 'integer', min: 1, group: 'output', doc: 'steps between two checkpoints', chosen: 'at the end and every five minutes' },
  { key: 'sampleEvery', type: 'integer', min: 1, group: 'output', doc: 'steps between two samples of text', chosen: 'a tenth of the steps' },
  { key: 'keep', type: 'integer', min: 1, default: 2, group: 'output', doc: 'last checkpoints that are kept, beside the best' },
] as const satisfies readonly OptionSpec[]

/** What a user may say about a training run; what is left out is chosen for this machine. */
export type TrainOptions = OptionsOf<typeof trainOptions>

/** The options of text generation, as `trainOptions` are those of training. */
// biome-ignore format: an option is a line
export const generateOptions = [
  { key: 'prompt', type: 'text', group: 'text', doc: 'text to go on from', chosen: 'the start of a text' },
  { key: 'prompts', type: 'text', group: 'text', doc: 'file of prompts, which are written in batches: rows with `prompt`, `text` or `messages`', value: 'FILE' },
  { key: 'chat', type: 'switch', default: false, group: 'text', doc: 'the prompt is what a user says, by the chat template of the model' },
  { key: 'tokens', type: 'integer', min: 1, max: 1_000_000, default: 200, group: 'text', doc: 'tokens to write at most' },
  { key: 'samples', type: 'integer', min: 1, max: 1_000_000, default: 1, group: 'text', doc: 'texts for each prompt' },
  { key: 'stop', type: 'text', group: 'text', doc: 'texts before which to stop, with | between; \\n is the end of a line' },
  { key: 'temperature', type: 'number', min: 0, default: 0.8, group: 'text', doc: 'spread of the choice; 0 always takes the likeliest token' },
  { key: 'topK', type: 'integer', min: 1, group: 'text', doc: 'choose among this many likeliest tokens', chosen: 'among all' },
  { key: 'topP', type: 'number', above: 0, max: 1, default: 1, group: 'text', doc: 'choose among the likeliest tokens that have this probability together' },
  { key: 'minP', type: 'number', min: 0, max: 1, default: 0, group: 'text', doc: 'choose among tokens with at least this share of the probability of the likeliest' },
  { key: 'repetitionPenalty', type: 'number', above: 0, default: 1, group: 'text', doc: 'above 1 makes tokens less likely that are there already' },
  { key: 'seed', type: 'integer', min: 0, max: 4_294_967_295, default: 1, group: 'text', doc: 'seed of the choice' },
  { key: 'batch', type: 'integer', min: 1, max: 100_000, default: 16, group: 'run', doc: 'texts that are written at once' },
  { key: 'threads', type: 'integer', min: 1, max: 1024, group: 'run', doc: 'threads', chosen: 'all cores' },
  { key: 'device', type: 'choice', choices: ['cpu', 'cuda', 'auto'], default: 'cpu', group: 'run', doc: 'what computes: this machine, its NVIDIA GPU, or the GPU where there is one' },
] as const satisfies readonly OptionSpec[]

/** What a user may say about text generation. */
export type GenerateOptions = OptionsOf<typeof generateOptions>
