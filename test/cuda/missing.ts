/**
 * Ops that have no CUDA kernel yet. A test holds this list against the library, so it only gets shorter: who adds a kernel takes its name
 * out here, and from then on every case of the table that it was missing for runs on the fibers.
 */
export const missing: readonly string[] = ['allReduce']
