import Keyv from "keyv";
import { createStorage } from "unstorage";
import fsDriver from "unstorage/drivers/fs-lite";
import memoryDriver from "unstorage/drivers/memory";

/** A map: the shortest connector. */
export const map = (): Map<string, Uint8Array> => new Map();

/** One with methods for many keys, and none to enumerate. */
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

/** A storage of unstorage in memory. */
export const memory = () => createStorage({ driver: memoryDriver() });

/** One on files. */
export const files = ({ base }: { base: string }) => createStorage({ driver: fsDriver({ base }) });

/** A Keyv. */
export const keyv = () => new Keyv();

/** An object that is shared by all that import it. */
export const shared = new Map<string, Uint8Array>();

/** No connector. */
export const nothing = { get: () => undefined };

/** A factory that fails. */
export function broken(): never {
  throw new Error("no such database");
}

/** What a test hands over. */
export const handedOver = (): unknown => Reflect.get(globalThis, "kvtierTestConnector");
