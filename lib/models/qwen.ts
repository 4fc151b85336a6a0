import { Decoder } from './decoder.js'

/** Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases of queries, keys and values. */
export class Qwen2 extends Decoder {}

/** Qwen3 (Yang et al. 2025): Llama with norms of the queries and keys of each head. */
export class Qwen3 extends Decoder {}
