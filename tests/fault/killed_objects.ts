/** How many objects `store_forever.ts` stores. */
export const KILLED_OBJECTS = 6;
/** Payload bytes of each of them. */
export const KILLED_OBJECT_BYTES = 2 ** 20;
