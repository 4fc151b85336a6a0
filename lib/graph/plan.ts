import type { Graph } from './graph.js'
import type { Instruction } from './instruction.js'
import { lower } from './lower.js'
import { type Plan, placed } from './place.js'
import { packAll, recompute } from './recompute.js'
import type { Packed } from './recompute-pack.js'

/** What a plan may do beside giving every value a place. */
export interface PlanOptions {
  /** Bytes that the arena is to fit into: values are computed again where that is needed. 0 asks for as little as possible. */
  readonly arena?: number
  /** Activations may be kept in fewer bits between the passes of a training step: all of them, or as many as `arena` asks for. */
  readonly packed?: Packed
}

/**
 * Orders the nodes and gives every value a place: views become strided operands, what a kernel cannot read is copied, outputs are written
 * straight into their externals, updates overwrite the state that they replace, and the last reader's buffer is written in place.
 *
 * @param donated inputs of the graph whose memory an update may overwrite
 * @param workspace scratch bytes that an instruction asks for
 */
export function makePlan(
  graph: Graph,
  donated: ReadonlySet<number>,
  workspace: (i: Omit<Instruction, 'workspace'>) => number,
  options: PlanOptions = {},
): Plan {
  const lowered = lower(graph, donated, workspace)
  const { arena, packed } = options
  if (arena !== undefined) return placed(recompute(lowered, arena, packed))
  return placed(packed ? packAll(lowered, packed) : lowered)
}
