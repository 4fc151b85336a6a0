import { Decoder } from './decoder.js'

/** Mistral (Jiang et al. 2023): Llama whose layers see a window of positions. */
export class Mistral extends Decoder {}
