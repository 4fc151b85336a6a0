// `npm run prebuild`: puts a binary for this platform into prebuilds/, with all beside it that a machine without a compiler
// lacks: oneDNN, OpenBLAS and the OpenMP runtime. prebuildify names, strips and copies; the build is that of `npm run compile`.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const release = join(root, 'build', 'Release')
const prebuildify = createRequire(import.meta.url)('prebuildify')

const built = spawnSync(process.execPath, [join(root, 'scripts', 'build.mjs'), '--native'], {
  cwd: root,
  stdio: 'inherit',
})
if (built.status !== 0) process.exit(built.status ?? 1)

/** The OpenMP runtime that oneDNN loads on this machine. */
function openmp() {
  const { stdout } = spawnSync('ldd', [join(release, 'libdnnl.so.3')], { encoding: 'utf8' })
  const path = /^\s*(libgomp\.so\.\d+) => (\S+)/m.exec(stdout)
  if (!path) {
    console.error('steepest: the OpenMP runtime that oneDNN needs was not found. Type: sudo apt-get install libgomp1')
    process.exit(1)
  }
  return { name: path[1], path: realpathSync(path[2]) }
}

// prebuildify takes the addon out of the build folder that it is given: it gets a copy.
mkdirSync(join(root, 'prebuilds'), { recursive: true })
const stage = mkdtempSync(join(root, 'prebuilds', 'stage-'))
const folder = join(stage, 'build', 'Release')
mkdirSync(folder, { recursive: true })
for (const file of readdirSync(release)) {
  if (/\.node$|\.so(\.\d+)?$/.test(file)) copyFileSync(join(release, file), join(folder, file))
}
const gomp = openmp()
copyFileSync(gomp.path, join(folder, gomp.name))

const out = join(root, 'prebuilds', `${process.platform}-${process.arch}`)
rmSync(out, { recursive: true, force: true })
const options = { name: 'steepest', napi: true, tagLibc: true, strip: true, nodeGyp: 'true', quiet: true }
prebuildify({ ...options, cwd: stage, out: root }, (error) => {
  rmSync(stage, { recursive: true, force: true })
  if (error) throw error
  for (const file of readdirSync(out)) console.log(`${(statSync(join(out, file)).size / 1e6).toFixed(1)} MB  ${file}`)
})
