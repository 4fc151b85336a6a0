/**
 * Ctrl+C (or SIGTERM) once aborts the signal; a second time calls `leave` with the exit code that tells the signal.
 * Call `end` when the work is over.
 */
export function onInterrupt(first: () => void, leave: (code: number) => void): { signal: AbortSignal; end(): void } {
  const controller = new AbortController()
  const listen = (code: number) => () => {
    if (controller.signal.aborted) return leave(code)
    controller.abort()
    first()
  }
  const [interrupt, terminate] = [listen(130), listen(143)]
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', terminate)
  return {
    signal: controller.signal,
    end() {
      process.off('SIGINT', interrupt)
      process.off('SIGTERM', terminate)
    },
  }
}
