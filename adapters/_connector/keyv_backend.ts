import { Buffer } from "node:buffer";
import type { Backend, BackendEntry } from "./backend.ts";

/** A Keyv, or a storage adapter of it; as far as it is used. */
export interface KeyvLike {
  /** The value of a key. */
  get(key: string): unknown;
  /** Sets the value of a key. */
  set(key: string, value: unknown): unknown;
  /** Whether there is one. */
  has?(key: string): unknown;
  /** Removes it. */
  delete?(key: string): unknown;
  /** Values of many keys. */
  getMany?(keys: readonly string[]): unknown;
  /** Whether there are values of many keys. */
  hasMany?(keys: readonly string[]): unknown;
  /** Sets the values of many keys. */
  setMany?(entries: readonly { readonly key: string; readonly value: unknown }[]): unknown;
  /** All keys with their values, if the store can enumerate them. */
  iterator?: ((namespace?: string) => AsyncIterable<readonly [string, unknown]>) | undefined;
  /** Namespace of the keys. */
  readonly namespace?: string | undefined;
  /** Listens to events. */
  on?(event: "error", listener: (cause: unknown) => void): unknown;
  /** Stops listening. */
  off?(event: "error", listener: (cause: unknown) => void): unknown;
  /** Releases everything. */
  disconnect?(): unknown;
}

/**
 * Makes a {@linkcode Backend} of a Keyv.
 *
 * @param onError Told what the Keyv says instead of throwing it.
 */
export function keyvBackend(keyv: KeyvLike, onError: (cause: unknown) => void): Backend {
  keyv.on?.("error", onError);
  return {
    get: (name) => keyv.get(name),
    set: (name, value) => keyv.set(name, asBuffer(value)),
    has: async (name) => keyv.has?.(name) ?? (await keyv.get(name)) !== undefined,
    ...(keyv.delete && { delete: (name) => keyv.delete?.(name) }),
    ...(keyv.getMany && { getMany: (names) => keyv.getMany?.(names) }),
    ...(keyv.hasMany && { hasMany: (names) => keyv.hasMany?.(names) }),
    ...(keyv.setMany && {
      setMany: (entries: readonly BackendEntry[]) =>
        keyv.setMany?.(entries.map(([key, value]) => ({ key, value: asBuffer(value) }))),
    }),
    ...(typeof keyv.iterator === "function" && {
      async *list() {
        for await (const [name] of keyv.iterator?.(keyv.namespace) ?? []) yield name;
      },
    }),
    async close() {
      keyv.off?.("error", onError);
      await keyv.disconnect?.();
    },
  };
}

/** What Keyv can write as text and read again: of other arrays it makes objects. */
function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
