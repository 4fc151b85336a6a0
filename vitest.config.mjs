import { defineConfig } from 'vitest/config'

export default defineConfig({
  // The papers import the package by its name, as its users do.
  resolve: { alias: { steepest: new URL('lib/index.ts', import.meta.url).pathname } },
  test: {
    include: ['test/**/*.test.ts'],
    reporters: ['default', './test/house/summary.mjs'],
    // Training tests use all cores by themselves.
    maxWorkers: 2,
    testTimeout: process.env.STEEPEST_LONG ? 1_800_000 : 60_000,
    hookTimeout: 60_000,
  },
})
