import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** One thing that a walk of CONTRIBUTING.md does, with the heading that it stands under. */
export type Step = { under: string } & (
  | { is: 'create'; path: string; text: string }
  | { is: 'edit'; path: string; diff: string }
  /** A command of the shell and what it prints, where the page says so. */
  | { is: 'run'; command: string; prints?: string }
)

/** The steps that a page describes: a fenced block belongs to the file that the text before it names as ``Create `path` `` or ``In `path` ``. */
export function stepsOf(page: string): Step[] {
  const steps: Step[] = []
  let under = ''
  let named: { how: string; path: string } | undefined
  const lines = page.split('\n')
  let text = ''
  for (let i = 0; i < lines.length; i++) {
    const fence = /^```(\w*)( setup)?$/.exec(lines[i])
    if (!fence) {
      const heading = /^## (.*)$/.exec(lines[i])
      if (heading) under = heading[1]
      // A sentence may go over the end of a line.
      text = lines[i] === '' ? '' : `${text} ${lines[i]}`
      for (const match of text.matchAll(/\b(Create|In) `([^`]+)`/g)) named = { how: match[1], path: match[2] }
      continue
    }
    const end = lines.indexOf('```', i + 1)
    const block = lines.slice(i + 1, end)
    i = end
    text = ''
    if (fence[2]) continue
    if (fence[1] === 'sh') {
      for (const line of block) {
        const [command, prints] = line.split(' # ')
        steps.push({ is: 'run', under, command, prints })
      }
      continue
    }
    if (!named) throw new Error(`a block under "${under}" belongs to no file`)
    if (fence[1] === 'diff') steps.push({ is: 'edit', under, path: named.path, diff: block.join('\n') })
    else steps.push({ is: 'create', under, path: named.path, text: `${block.join('\n')}\n` })
  }
  return steps
}

/** A text with a diff of one hunk applied; the lines that the diff keeps or takes out must stand in it once. */
export function edited(text: string, diff: string, path: string): string {
  const side = (sign: string) => diff.split('\n').filter((line) => line[0] === ' ' || line[0] === sign)
  const [before, after] = ['-', '+'].map((sign) =>
    side(sign)
      .map((line) => line.slice(1))
      .join('\n'),
  )
  const at = `\n${text}`.indexOf(`\n${before}\n`)
  if (at < 0) throw new Error(`${path} does not have the lines\n${before}`)
  if (`\n${text}`.indexOf(`\n${before}\n`, at + 1) >= 0) throw new Error(`${path} has these lines twice\n${before}`)
  return text.slice(0, at) + after + text.slice(at + before.length)
}

/** Does a step that touches a file. */
export function apply(step: Step, root: string): void {
  if (step.is === 'run') return
  const path = join(root, step.path)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, step.is === 'create' ? step.text : edited(readFileSync(path, 'utf8'), step.diff, step.path))
}
