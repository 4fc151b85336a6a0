/** A module path in which the layers of a stack are one: `h.*.mlp`. */
export const moduleOf = (path: string): string => path.replace(/(^|\.)\d+(?=\.|$)/g, '$1*')
