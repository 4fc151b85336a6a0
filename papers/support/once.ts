/** A function that is called once for each key, so that an experiment and its control share what both need. */
export function once<T>(): (key: string, f: () => Promise<T>) => Promise<T> {
  const known = new Map<string, Promise<T>>()
  return (key, f) => {
    const found = known.get(key) ?? f()
    known.set(key, found)
    return found
  }
}
