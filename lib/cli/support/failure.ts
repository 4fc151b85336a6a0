import { SteepestError } from '../../errors.js'

/** An error as one sentence for people: who, the rule, what came, what to do. */
export function sentence(error: Error): string {
  return error instanceof SteepestError ? error.sentence : error.message || error.name
}

/** 2 where the user's words are at fault, 1 otherwise. */
export function exitCodeOf(error: unknown): number {
  return error instanceof SteepestError && (error.code === 'OPTION' || error.code === 'ARGUMENT') ? 2 : 1
}
