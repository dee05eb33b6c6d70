import { Buffer } from "node:buffer";
import type { Backend, BackendEntry } from "./backend.ts";

type Entries = AsyncIterable<readonly unknown[]> | Iterable<readonly unknown[]>;

/** What a Keyv keeps its values in; as far as it is used. */
export interface KeyvStoreLike {
  /** All entries, such as those of a map. */
  [Symbol.iterator]?(): Iterator<readonly unknown[]>;
  /** All entries of a namespace. */
  iterator?(namespace?: string): AsyncIterable<readonly unknown[]>;
}

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
  /** Where the values are. */
  readonly store?: KeyvStoreLike;
  /** The same of a Keyv 4. */
  readonly opts?: { readonly namespace?: string; readonly store?: KeyvStoreLike } | undefined;
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
 * All names, as the store of a Keyv has them: the iterator of the Keyv itself reads and decodes all
 * values, ends at the first that it cannot decode, and takes a namespace with a colon for part of
 * the names.
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

/** An answer; a text in its place where a value is none that a Keyv has written. */
async function unlessUndecodable(ask: () => Promise<unknown>): Promise<unknown> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof SyntaxError) return "undecodable";
    throw error;
  }
}

/** What Keyv can write as text and read again: of other arrays it makes objects. */
function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
