import { findNative } from './addon.js'

// Loaded first by `index.ts`: a package without a native part says so when it is imported, not at the first number.
findNative()
