import { Decoder } from './decoder.js'

/** Gemma 2 (Riviere et al. 2024): windows on every other layer, norms before and after, soft-capped scores and logits. */
export class Gemma2 extends Decoder {}

/** The text model of Gemma 3 (Kamath et al. 2025): five layers with windows to one without, each with its own rotary base. */
export class Gemma3 extends Decoder {}
