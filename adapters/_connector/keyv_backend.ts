import { Buffer } from "node:buffer";
import type { Backend, BackendEntry } from "./backend.ts";

type Entries = AsyncIterable<readonly unknown[]> | Iterable<readonly unknown[]>;

/** The part of a Keyv store that this adapter uses. */
export interface KeyvStoreLike {
  /** All entries, as a `Map` iterates them. */
  [Symbol.iterator]?(): Iterator<readonly unknown[]>;
  /** All entries of a namespace. */
  iterator?(namespace?: string): AsyncIterable<readonly unknown[]>;
}

/** The part of a Keyv, or of one of its storage adapters, that this adapter uses. */
export interface KeyvLike {
  get(key: string): unknown;
  set(key: string, value: unknown): unknown;
  /** Whether a key has a value. */
  has?(key: string): unknown;
  /** Removes a value. */
  delete?(key: string): unknown;
  getMany?(keys: readonly string[]): unknown;
  /** Whether each key has a value. */
  hasMany?(keys: readonly string[]): unknown;
  /** Sets many values. */
  setMany?(entries: readonly { readonly key: string; readonly value: unknown }[]): unknown;
  /** All entries, if the store can list them. */
  iterator?: ((namespace?: string) => AsyncIterable<readonly [string, unknown]>) | undefined;
  /** Prefix of all keys. */
  readonly namespace?: string | undefined;
  /** The underlying store. */
  readonly store?: KeyvStoreLike;
  /** Namespace and store of Keyv 4. */
  readonly opts?: { readonly namespace?: string; readonly store?: KeyvStoreLike } | undefined;
  /** Adds a listener. */
  on?(event: "error", listener: (cause: unknown) => void): unknown;
  /** Removes a listener. */
  off?(event: "error", listener: (cause: unknown) => void): unknown;
  /** Releases all resources. */
  disconnect?(): unknown;
}

/**
 * Adapts a Keyv.
 *
 * @param onError Called with the errors that Keyv emits instead of throwing.
 */
export function keyvBackend(keyv: KeyvLike, onError: (cause: unknown) => void): Backend {
  keyv.on?.("error", onError);
  return {
    get: (name) => unlessUndecodable(async () => await keyv.get(name)),
    set: (name, value) => keyv.set(name, asBuffer(value)),
    has: (name) =>
      unlessUndecodable(async () => await (keyv.has?.(name) ?? await keyv.get(name) !== undefined)),
    ...(keyv.delete && { delete: (name) => keyv.delete?.(name) }),
    ...(keyv.getMany && { getMany: (names) => keyv.getMany?.(names) }),
    ...(keyv.hasMany && { hasMany: (names) => keyv.hasMany?.(names) }),
    ...(keyv.setMany && {
      setMany: (entries: readonly BackendEntry[]) =>
        keyv.setMany?.(entries.map(([key, value]) => ({ key, value: asBuffer(value) }))),
    }),
    ...(typeof keyv.iterator === "function" && {
      list: () => namesIn(keyv),
    }),
    async close() {
      keyv.off?.("error", onError);
      await keyv.disconnect?.();
    },
  };
}

/**
 * All keys, read from the store of a Keyv. The iterator of the Keyv itself decodes every value,
 * stops at the first invalid one, and takes part of a namespace with a colon for part of the keys.
 */
async function* namesIn(keyv: KeyvLike): AsyncGenerator<string, void> {
  const namespace = keyv.namespace ?? keyv.opts?.namespace;
  const start = `${namespace}:`;
  for await (const entry of entriesIn(keyv, namespace)) {
    const [name] = entry;
    if (typeof name !== "string") continue;
    yield namespace && name.startsWith(start) ? name.slice(start.length) : name;
  }
}

function entriesIn(keyv: KeyvLike, namespace: string | undefined): Entries {
  const store = keyv.store ?? keyv.opts?.store;
  if (store?.[Symbol.iterator] !== undefined) return store as Iterable<readonly unknown[]>;
  return store?.iterator?.(namespace) ?? keyv.iterator?.(namespace) ?? [];
}

/** An answer, or a placeholder string for a value that Keyv did not write. */
async function unlessUndecodable(ask: () => Promise<unknown>): Promise<unknown> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof SyntaxError) return "undecodable";
    throw error;
  }
}

/** Keyv can serialize a Buffer; other arrays would become plain objects. */
function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
