import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    reporters: ['default', './test/house/summary.mjs'],
    // Training tests use all cores by themselves.
    maxWorkers: 2,
    testTimeout: process.env.STEEPEST_LONG ? 1_800_000 : 60_000,
    hookTimeout: 60_000,
  },
})
