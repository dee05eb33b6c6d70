import { createStorage, fsDriver, Keyv, memoryDriver } from "./stores.ts";

/** A minimal connector on a Map. */
export const map = (): Map<string, Uint8Array> => new Map();

/** A connector with batch methods and without enumeration. */
export function batches() {
  const held = new Map<string, Uint8Array>();
  return {
    get: (key: string) => held.get(key) ?? null,
    set: (key: string, value: Uint8Array) => void held.set(key, value),
    exists: (key: string) => held.has(key),
    delete: (key: string) => held.delete(key),
    getMany: (keys: readonly string[]) => keys.map((key) => held.get(key) ?? null),
    setMany: (entries: readonly (readonly [string, Uint8Array])[]) => {
      for (const [key, value] of entries) held.set(key, value);
    },
    existsMany: (keys: readonly string[]) => keys.map((key) => held.has(key)),
  };
}

/** An in-memory unstorage. */
export const memory = () => createStorage({ driver: memoryDriver() });

/** An unstorage on files. */
export const files = ({ base }: { base: string }) => createStorage({ driver: fsDriver({ base }) });

/** A Keyv store. */
export const keyv = () => new Keyv();

/** A store shared by all importers. */
export const shared = new Map<string, Uint8Array>();

/** Not a connector. */
export const nothing = { get: () => undefined };

/** A factory that fails. */
export function broken(): never {
  throw new Error("no such database");
}

/** A store set by a test. */
export const handedOver = (): unknown => Reflect.get(globalThis, "kvtierTestConnector");
