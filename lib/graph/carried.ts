import { nextNodeId, type Node, setWatcher, type Tensor } from '../tensor/tensor.js'
import { isLeaf, schedule } from './graph.js'

/** Nodes after which what is carried on is evaluated although nothing was read. */
const MOST_NODES = 2000

/**
 * What a loop carries on. A read evaluates what it is asked for; the weights of a loop, which are never read, would grow a longer graph with
 * every round. So at every read, and after some thousand nodes without one, a line is drawn: a tensor that was made before the line and
 * is used after it is evaluated together with what is read next. Rounds then have equal graphs, and so one program.
 */
let line = 0
let made = 0
/** Held, not weakly: which of them is evaluated must not hang on when garbage is collected, as what is fused decides how bfloat16 is rounded. */
let crossing: Tensor[] = []
let seen = new WeakSet<Tensor>()

/** Draws a line here. */
export function drawLine(): void {
  line = nextNodeId()
  made = 0
  crossing = []
  seen = new WeakSet()
}

/** What a view shows: nothing is gained by a copy of it. */
function beneath(t: Tensor): Tensor {
  let at = t
  while (at.node.op.kind === 'view' && at.storage === undefined) at = at.node.inputs[0]
  return at
}

function watch(node: Node): void {
  made++
  for (const input of node.inputs) {
    const t = beneath(input)
    if (t.node.id >= line || t.storage !== undefined || isLeaf(t.node) || seen.has(t)) continue
    seen.add(t)
    crossing.push(t)
  }
}

/** The tensors that are carried over the line and can be evaluated: `ready` says so of native memory. */
export function carried(ready: (leaf: Tensor) => boolean): Tensor[] {
  const pending = crossing.filter((t) => t.storage === undefined)
  if (pending.length === 0) return pending
  // What hangs on a placeholder of some trace, or on memory that another run writes, is left as it is.
  const not = new Set<Node>()
  for (const node of schedule(pending)) {
    const missing = isLeaf(node) ? node.op.name !== 'constant' && !ready(node.outputs[0]) : false
    if (missing || node.inputs.some((t) => (t.storage ? !ready(t) : not.has(t.node)))) not.add(node)
  }
  return pending.filter((t) => !not.has(t.node))
}

/** Has `evaluate` called where nothing is read for long. */
export function watchNodes(evaluate: () => void): void {
  setWatcher((node, free) => {
    watch(node)
    if (free && made > MOST_NODES) {
      if (crossing.length > 0) evaluate()
      drawLine()
    }
  })
}
