/** Fires a timer every 10 ms; gives a function that stops it and tells the seconds by which the worst one came late. */
export function lateness() {
  let worst = 0
  let last = performance.now()
  const look = () => {
    const now = performance.now()
    worst = Math.max(worst, now - last - 10)
    last = now
  }
  const timer = setInterval(look, 10)
  return () => {
    clearInterval(timer)
    look()
    return worst / 1000
  }
}
