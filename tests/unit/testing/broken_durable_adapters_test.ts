// Each of these durable adapters violates one requirement.
import { assertEquals } from "@std/assert";
import {
  type AdapterObject,
  Bitmap,
  concatParts,
  fillParts,
  type L2Adapter,
  type ObjectKey,
} from "../../../src/adapter/contract.ts";
import { wrapAdapter } from "../../../src/adapter/wrap_adapter.ts";
import { systemClock, wait } from "../../../src/base/clock.ts";
import { moduleOf } from "../../support/adapters.ts";
import { type Broken, type BrokenOptions, failedCases } from "../../support/failed_cases.ts";

interface Held {
  readonly key: ObjectKey;
  readonly bytes: Uint8Array<ArrayBuffer>;
}
type Disk = Map<string, Held>;

const SURVIVAL = "if durable, objects with all kinds of keys survive a restart in all methods";
const CLOSING = "can be closed twice, and later calls settle";

/** An adapter with all methods on what survives it. */
function diskAdapter(disk: Disk): L2Adapter {
  return {
    capabilities: { shared: true, durable: true },
    store(objects) {
      for (const { key, parts } of objects) disk.set(key.id, { key, bytes: concatParts(parts) });
      const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
      return Promise.resolve({ stored: new Bitmap(objects.length, objects.length), bytes });
    },
    lookupAndLock: (keys) => Promise.resolve(Bitmap.from(keys, ({ id }) => disk.has(id))),
    load: (objects) =>
      Promise.resolve(
        Bitmap.from(objects, ({ key, parts }) => fillParts(parts, disk.get(key.id)?.bytes)),
      ),
    delete(keys) {
      const before = usedBytes(disk);
      const deleted = Bitmap.from(keys, ({ id }) => disk.delete(id));
      return Promise.resolve({ deleted, bytes: before - usedBytes(disk) });
    },
    async *list({ model }) {
      for (const { key, bytes } of [...disk.values()]) {
        if (model === undefined || key.model === model) {
          yield { key, byteLength: bytes.byteLength };
        }
      }
    },
    usage: () => Promise.resolve({ usedBytes: usedBytes(disk), objectCount: disk.size }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function usedBytes(disk: Disk): number {
  return [...disk.values()].reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
}

/** An adapter that is broken anew, as `breakIt` says, each time it is opened. */
function onDisk(
  breakIt: (adapter: L2Adapter, disk: Disk) => Partial<L2Adapter>,
): BrokenOptions {
  let disk: Disk = new Map();
  return {
    module: moduleOf(() => {
      const adapter = diskAdapter(disk);
      return wrapAdapter(adapter, breakIt(adapter, disk));
    }),
    config: () => {
      disk = new Map();
      return { config: {} };
    },
  };
}

/** An adapter that does not find again, in a lookup, what `isLost` says it has lost. */
function losing(isLost: (key: ObjectKey) => boolean): BrokenOptions {
  return onDisk((_, disk) => {
    for (const { key } of [...disk.values()]) if (isLost(key)) disk.delete(key.id);
    return { capabilities: { durable: true } };
  });
}

/** An adapter with a method that does its work for the first `most` keys of a call only. */
const first = (keys: readonly ObjectKey[], most: number, bits: Bitmap): Bitmap =>
  Bitmap.from(keys.keys().toArray(), (i) => i < most && bits.test(i));

const BROKEN: readonly Broken[] = [
  ["nothing at all, with all methods, on a disk", [], onDisk(() => ({}))],
  ["loses tenants", [SURVIVAL], losing(({ cacheSalt }) => cacheSalt !== "")],
  ["loses ranks", [SURVIVAL], losing(({ kvRank }) => kvRank !== 0)],
  ["loses groups", [SURVIVAL], losing(({ objectGroup }) => objectGroup !== 0)],
  ["loses long names", [SURVIVAL], losing(({ model }) => model.length > 255)],
  [
    "counts nothing that was there before",
    [SURVIVAL],
    onDisk((adapter, disk) => {
      const before = { bytes: usedBytes(disk), count: disk.size };
      return {
        capabilities: { durable: true },
        usage: async (options) => {
          const usage = await adapter.usage?.(options);
          return {
            usedBytes: Math.max(0, (usage?.usedBytes ?? 0) - before.bytes),
            objectCount: Math.max(0, (usage?.objectCount ?? 0) - before.count),
          };
        },
      };
    }),
  ],
  [
    "does not list what was there before",
    [SURVIVAL],
    onDisk((adapter, disk) => {
      const before = new Set(disk.keys());
      return {
        async *list(options) {
          for await (const each of adapter.list?.(options) ?? []) {
            if (!before.has(each.key.id)) yield each;
          }
        },
      };
    }),
  ],
  [
    "says that what was there before is missing when it removes it",
    [SURVIVAL],
    onDisk((adapter, disk) => {
      const before = new Set(disk.keys());
      return {
        delete: async (keys, options) => {
          const result = await adapter.delete?.(keys, options);
          const deleted = Bitmap.from(
            keys.keys().toArray(),
            (i) => !before.has(keys[i]?.id ?? "") && result?.deleted.test(i) === true,
          );
          return { deleted, bytes: result?.bytes ?? 0 };
        },
      };
    }),
  ],
  [
    "removes no more than 128 objects of a call",
    ["lookup and delete answer for each of many keys"],
    onDisk((adapter) => ({
      delete: async (keys, options) => {
        const result = await adapter.delete?.(keys.slice(0, 128), options);
        const deleted = new Bitmap(keys.length);
        for (let i = 0; i < Math.min(128, keys.length); i++) {
          if (result?.deleted.test(i)) deleted.set(i);
        }
        return { deleted, bytes: result?.bytes ?? 0 };
      },
    })),
  ],
  [
    "finds no more than 512 objects in a call",
    ["lookup and delete answer for each of many keys"],
    onDisk((adapter) => ({
      lookupAndLock: async (keys, options) =>
        first(keys, 512, await adapter.lookupAndLock(keys, options)),
    })),
  ],
  [
    "lists models by the beginning of their names",
    ["list by model compares whole names"],
    onDisk((adapter) => ({
      async *list({ model, ...options }) {
        for await (const each of adapter.list?.(options) ?? []) {
          if (model === undefined || each.key.model.startsWith(model)) yield each;
        }
      },
    })),
  ],
  [
    "reads the array of a store after it has answered",
    ["changes to the caller's array after a store have no effect"],
    onDisk((adapter) => {
      let writing = Promise.resolve();
      return {
        capabilities: { durable: true },
        store: (objects, options) => {
          const known = objects.map(copyOf);
          writing = writing.then(() => wait(systemClock, 0)).then(async () => {
            for (let i = 0; i < objects.length; i++) {
              const named = objects[i] as AdapterObject;
              const bytes = known[i] ?? named;
              await adapter.store([{ ...bytes, key: named.key }], options);
            }
          });
          const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
          return Promise.resolve({ stored: new Bitmap(objects.length, objects.length), bytes });
        },
        lookupAndLock: (keys, options) => writing.then(() => adapter.lookupAndLock(keys, options)),
        load: (objects, options) => writing.then(() => adapter.load(objects, options)),
        delete: async (keys, options) => {
          await writing;
          return await adapter.delete?.(keys, options) ?? noneOf(keys);
        },
        async *list(options) {
          await writing;
          yield* adapter.list?.(options) ?? [];
        },
        usage: async (options) => {
          await writing;
          return await adapter.usage?.(options) ?? { usedBytes: 0, objectCount: 0 };
        },
        [Symbol.asyncDispose]: () => writing,
      };
    }),
  ],
  [
    "cannot be closed twice",
    [CLOSING],
    onDisk(() => {
      let isClosed = false;
      return {
        [Symbol.asyncDispose]: () => {
          if (isClosed) return Promise.reject(new Error("Closed already"));
          isClosed = true;
          return Promise.resolve();
        },
      };
    }),
  ],
];

function copyOf({ key, parts, byteLength }: AdapterObject): AdapterObject {
  return { key, parts: [concatParts(parts)], byteLength };
}

function noneOf(keys: readonly ObjectKey[]): { deleted: Bitmap; bytes: number } {
  return { deleted: new Bitmap(keys.length), bytes: 0 };
}

for (const [what, promises, options] of BROKEN) {
  Deno.test(`the conformance suite says what is wrong with an adapter: ${what}`, async () => {
    assertEquals(await failedCases(options), promises.toSorted());
  });
}

for (const name of ["store", "lookupAndLock", "load", "delete", "usage"] as const) {
  Deno.test(`the conformance suite sees that ${name} hangs after the adapter was closed`, async () => {
    const options = onDisk((adapter) => {
      let isClosed = false;
      const method = adapter[name] as (...given: unknown[]) => Promise<never>;
      return {
        [name]: (...given: unknown[]) =>
          isClosed ? new Promise<never>(() => {}) : method.apply(adapter, given),
        [Symbol.asyncDispose]: () => {
          isClosed = true;
          return Promise.resolve();
        },
      };
    });
    const failed = await failedCases({ ...options, deadlineMs: 400 }, (asked) => asked === CLOSING);
    assertEquals(failed, [CLOSING]);
  });
}
