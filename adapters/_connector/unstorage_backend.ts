import type { Backend } from "./backend.ts";

/** The part of an unstorage storage, or of a driver with binary values, that this adapter uses. */
export interface UnstorageLike {
  /** The value of a key as bytes. */
  getItemRaw(key: string, options: object): unknown;
  setItemRaw(key: string, value: Uint8Array, options: object): unknown;
  /** Whether a key has a value. */
  hasItem(key: string, options: object): unknown;
  /** Removes a value. */
  removeItem?(key: string, options: object): unknown;
  getKeys?(base: string, options: object): unknown;
  /** Metadata of a key. */
  getMeta?(key: string, options: object): unknown;
  /** Releases all resources. */
  dispose?(): unknown;
}

/** Adapts a storage or a driver of unstorage. */
export function unstorageBackend(storage: UnstorageLike): Backend {
  return {
    get: (name) => storage.getItemRaw(name, {}),
    set: (name, value) => storage.setItemRaw(name, value, {}),
    has: (name) => storage.hasItem(name, {}),
    ...(storage.removeItem && { delete: (name) => storage.removeItem?.(name, {}) }),
    ...(storage.getMeta && {
      async sizeOf(name) {
        const meta = await storage.getMeta?.(name, { nativeOnly: true });
        return (meta as { readonly size?: unknown } | null | undefined)?.size;
      },
    }),
    ...(storage.getKeys && {
      async *list() {
        yield* await storage.getKeys?.("", {}) as Iterable<string>;
      },
    }),
    ...(storage.dispose && { close: () => storage.dispose?.() }),
  };
}
