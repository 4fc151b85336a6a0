export { galore, type GaloreOptions } from './galore.js'
export type { ProjectionOptions } from './projection-options.js'
export type { Match } from './options.js'
export type { ProjType } from './projection.js'
