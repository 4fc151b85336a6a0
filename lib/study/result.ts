import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { native, packageRoot } from '../addon.js'
import { atomicWriteFile } from '../io/atomic.js'
import { nodeFileSystem } from '../io/filesystem.js'
import type { Claim, Plot } from './contract.js'
import { studySvg } from './draw.js'
import type { Judged } from './judge.js'
import type { ControlVerdict, Verdict } from './run.js'

/** What `result.json` holds. Numbers that are not finite are null. */
export interface StudyResult {
  name: string
  claim: Pick<Claim, 'title' | 'by' | 'source' | 'says' | 'notShown' | 'found'>
  verdict: Verdict['verdict']
  seeds: readonly number[]
  criteria: readonly Judged[]
  numbers: Verdict['numbers']
  controls: readonly ControlVerdict[]
  /** What numbers that decide nothing are, by key. */
  reports: Readonly<Record<string, string>>
  /** Commit of the clone that measured, with a + where files differed from it; absent in an installed package. */
  commit?: string
  versions: Readonly<Record<string, string>>
  machine: { cpu: string; kernels: string; threads: number }
  seconds: number
}

function commitOf(folder: string): string | undefined {
  if (!existsSync(join(folder, '.git'))) return undefined
  const git = (...args: string[]) => spawnSync('git', args, { cwd: folder, encoding: 'utf8' })
  const head = git('rev-parse', 'HEAD')
  if (head.status !== 0) return undefined
  // Results, of others too, are not what is measured.
  const measured = ['.', ':(exclude)papers/results', ':(exclude)docs/papers.md']
  const changed = git('status', '--porcelain', '--untracked-files=no', '--', ...measured).stdout.trim() !== ''
  return head.stdout.trim() + (changed ? '+' : '')
}

/** A verdict with all that is needed to judge it later: where, when, with what. */
export function resultOf(name: string, claim: Claim, verdict: Verdict): StudyResult {
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }
  const info = native().info() as { level: string; onednn?: string; openblas?: string }
  const { title, by, source, says, notShown, found } = claim
  const { curves: _, ...rest } = verdict
  return {
    name,
    claim: { title, by, source, says, notShown, ...(found ? { found } : {}) },
    ...rest,
    reports: claim.reports ?? {},
    commit: commitOf(packageRoot),
    versions: {
      steepest: version,
      node: process.versions.node,
      ...(info.onednn ? { oneDNN: info.onednn } : {}),
      ...(info.openblas ? { OpenBLAS: info.openblas } : {}),
    },
    machine: { cpu: cpus()[0]?.model.trim() || 'unknown', kernels: info.level, threads: native().threads() },
  }
}

/** Writes `result.json` and `plot.svg` into a folder, each whole or not at all, and gives their paths. */
export async function writeStudy(
  folder: string,
  result: StudyResult,
  plot: Plot,
  curves: Verdict['curves'],
): Promise<{ result: string; plot: string }> {
  await nodeFileSystem.makeFolder(folder)
  const paths = { result: join(folder, 'result.json'), plot: join(folder, 'plot.svg') }
  await atomicWriteFile(paths.result, `${JSON.stringify(result, null, 2)}\n`)
  await atomicWriteFile(paths.plot, studySvg(`${result.name}: ${result.claim.title}`, plot, { curves }))
  return paths
}
