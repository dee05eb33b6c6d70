import type { Backend } from "./backend.ts";

/** A driver of unstorage that takes bytes, or a storage that it made; as far as it is used. */
export interface UnstorageLike {
  /** The value of a key, as bytes. */
  getItemRaw(key: string, options: object): unknown;
  /** Sets the value of a key. */
  setItemRaw(key: string, value: Uint8Array, options: object): unknown;
  /** Whether there is one. */
  hasItem(key: string, options: object): unknown;
  /** Removes it. */
  removeItem?(key: string, options: object): unknown;
  /** All keys. */
  getKeys?(base: string, options: object): unknown;
  /** What is known of a key. */
  getMeta?(key: string, options: object): unknown;
  /** Releases everything. */
  dispose?(): unknown;
}

/** Makes a {@linkcode Backend} of a driver of unstorage, or of a storage. */
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
