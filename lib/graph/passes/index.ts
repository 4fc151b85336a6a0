import type { Graph } from '../graph.js'
import { cse } from './cse.js'
import { epilogue } from './epilogue.js'
import { fuse } from './fuse.js'
import { inline } from './inline.js'
import { joinLoss } from './join-loss.js'
import { joinUpdates } from './join-updates.js'
import { prune } from './prune.js'
import { simplify } from './simplify.js'
import { sums } from './sums.js'

/** A pass is a pure function from graph to graph that does not change the numbers. Dead code goes with every pass: what no output needs is not rebuilt. */
export type Pass = (graph: Graph) => Graph

/** The passes that every program goes through, in order. */
export const PASSES: readonly Pass[] = [inline, prune, simplify, cse, joinLoss, sums, epilogue, fuse, joinUpdates]

export const optimize = (graph: Graph): Graph => PASSES.reduce((g, pass) => pass(g), graph)
