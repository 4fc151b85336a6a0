export const KERNELS: readonly string[] = []
export const ELEMENTWISE: readonly string[] = []
export const TABLE_HASH = '0'
