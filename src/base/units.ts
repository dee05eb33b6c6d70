/** Bytes of a mebibyte. */
export const MIB: number = 2 ** 20;
/** Bytes of a gibibyte. */
export const GIB: number = 2 ** 30;
/** Max size that can be configured, in GiB: in bytes it is still a safe integer. */
export const MAX_GIB: number = 2 ** 22;
