import { readFileSync, statfsSync, statSync } from 'node:fs'
import { availableParallelism, cpus, freemem, release, totalmem } from 'node:os'
import { findNative, native } from '../addon.js'
import { SteepestError } from '../errors.js'
import { bytes } from './plot-numbers.js'

/** One thing that was looked at. */
export interface Finding {
  name: string
  value: string
  /** Whether training works with it as it is. */
  ok: boolean
  /** What to do where it is not ok, or where more could be had. */
  fix?: string
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** The instruction sets that steepest has kernels for, of those the CPU has. */
function cpuFeatures(): string[] {
  const known = ['avx2', 'fma', 'avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx512_bf16', 'amx_bf16', 'amx_tile']
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(read('/proc/cpuinfo'))?.[1].split(' ') ?? [])
  return known.filter((name) => flags.has(name))
}

/** Bytes of memory that the process may use: those of the machine, or the limit of its control group. */
export function memoryLimit(): number {
  const limits = ['/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'].map((path) =>
    Number(read(path) || Number.NaN),
  )
  return Math.min(totalmem(), ...limits.filter((limit) => limit > 0))
}

/** Bytes that can be had now without swapping. */
function memoryAvailable(): number {
  const kilobytes = /^MemAvailable:\s*(\d+) kB/m.exec(read('/proc/meminfo'))?.[1]
  return kilobytes === undefined ? freemem() : Number(kilobytes) * 1024
}

/** Where the native part is, whether it loads, and what it is built of. */
function addonFindings(): Finding[] {
  try {
    const path = findNative()
    const info = native().info() as ReturnType<ReturnType<typeof native>['info']> & {
      onednn?: string
      openblas?: string
    }
    const built = statSync(path).mtime.toISOString().slice(0, 10)
    const levels = info.levels.filter((name) => name !== info.level)
    const also = levels.length > 0 ? ` (also ${levels.join(', ')})` : ''
    return [
      { name: 'native part', value: `${path}, built ${built}`, ok: true },
      { name: 'kernels', value: info.level + also, ok: true },
      ...(info.onednn ? [{ name: 'oneDNN', value: info.onednn, ok: true }] : []),
      ...(info.openblas ? [{ name: 'OpenBLAS', value: info.openblas, ok: true }] : []),
    ]
  } catch (error) {
    const { rule, got, fix } =
      error instanceof SteepestError
        ? error
        : { rule: error instanceof Error ? error.message.split('\n')[0] : String(error), got: '', fix: '' }
    const value = got ? `${rule}; got ${got}` : rule
    return [{ name: 'native part', value, ok: false, fix: fix || 'Build it with: npx steepest build' }]
  }
}

/** What was found out about this machine and this copy of steepest, without computing anything. */
export function inspectMachine(folder = process.cwd()): Finding[] {
  const [major, minor] = process.versions.node.split('.').map(Number)
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined
  const libc = report?.header?.glibcVersionRuntime
  const features = cpuFeatures()
  const disk = statfsSync(folder)
  const diskFree = disk.bavail * disk.bsize
  const processors = cpus()
  return [
    {
      name: 'Node',
      value: process.version,
      ok: major > 20 || (major === 20 && minor >= 17),
      fix: 'Node 20.17 or newer is needed',
    },
    {
      name: 'platform',
      value: `${process.platform}-${process.arch}, kernel ${release()}${libc ? `, glibc ${libc}` : ''}`,
      ok: true,
    },
    { name: 'CPU', value: processors[0]?.model.trim() || 'unknown', ok: true },
    ...(process.platform === 'linux' && process.arch === 'x64'
      ? [
          {
            name: 'CPU features',
            value: features.join(' ') || 'none of AVX2, fma and AVX-512',
            ok: features.includes('avx2') && features.includes('fma'),
            fix: 'without AVX2 and fma training is slow',
          },
        ]
      : []),
    { name: 'threads', value: `${availableParallelism()} of ${processors.length} processors`, ok: true },
    ...addonFindings(),
    {
      name: 'memory',
      value: `${bytes(memoryAvailable())} free of ${bytes(memoryLimit())}`,
      ok: memoryAvailable() > 512e6,
      fix: 'less than 512 MB is free',
    },
    { name: 'disk', value: `${bytes(diskFree)} free in ${folder}`, ok: diskFree > 1e9, fix: 'checkpoints need room' },
  ]
}
