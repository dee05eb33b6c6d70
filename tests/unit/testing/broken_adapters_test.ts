// Each of these adapters violates one requirement, and only the cases about it must fail.
import { assertEquals } from "@std/assert";
import {
  Bitmap,
  concatParts,
  fillParts,
  type L2Adapter,
  type ObjectKey,
} from "../../../src/adapter/contract.ts";
import { wrapAdapter } from "../../../src/adapter/wrap_adapter.ts";
import { systemClock, wait } from "../../../src/base/clock.ts";
import { mapAdapter, moduleOf } from "../../support/adapters.ts";
import { type Broken, type BrokenOptions, failedCases } from "../../support/failed_cases.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";

type Held = Map<string, Uint8Array<ArrayBuffer>>;

/** One turn of the event loop. */
const turn = (): Promise<void> => wait(systemClock, 0);

/** An adapter on what the other adapters of its case see too. */
function onDisk(breakIt: (disk: Held) => Partial<L2Adapter>): BrokenOptions {
  let disk: Held = new Map();
  return {
    module: moduleOf(() => ({ ...mapAdapter(disk), ...breakIt(disk) })),
    config: () => {
      disk = new Map();
      return { config: {} };
    },
  };
}

/** An adapter with all optional methods. */
function complete(breakIt: (adapter: RecordingAdapter) => Partial<L2Adapter>): BrokenOptions {
  return {
    module: moduleOf(() => {
      const adapter = new RecordingAdapter();
      return wrapAdapter(adapter, {
        unlock: (keys) => {
          for (const key of keys) unlockIfLocked(adapter, key);
        },
        ...breakIt(adapter),
      });
    }),
  };
}

/** It throws at a cache that unlocks what it did not lock; the contract allows that. */
function unlockIfLocked(adapter: RecordingAdapter, key: ObjectKey): void {
  try {
    adapter.unlock([key]);
  } catch {
    // Not locked.
  }
}

const BROKEN: readonly Broken[] = [
  ["nothing at all", [], onDisk(() => ({ capabilities: { shared: true, durable: true } }))],
  ["nothing at all, with all methods", [], complete(() => ({}))],
  ["promises less than its author claims", [
    "declares exactly the capabilities that its author claims",
  ], {
    ...onDisk(() => ({ capabilities: { shared: false } })),
    capabilities: { durable: true },
  }],
  ["promises more than its author claims", [
    "declares exactly the capabilities that its author claims",
  ], {
    ...onDisk(() => ({ capabilities: { evicts: true, shared: false } })),
    capabilities: {},
  }],
  [
    "does not take what is as large as it says",
    ["accepts an object of its maximum size"],
    onDisk((disk) => ({
      capabilities: { maxObjectBytes: 6 * 2 ** 20 },
      store: async (objects, options) => {
        const fitting = objects.filter(({ byteLength }) => byteLength < 6 * 2 ** 20);
        const { bytes } = await mapAdapter(disk).store(fitting, options);
        return { stored: Bitmap.from(objects, (object) => fitting.includes(object)), bytes };
      },
    })),
  ],
  [
    "remembers what another one has replaced",
    ["if shared, another adapter with the same configuration sees replacements and removals"],
    onDisk((disk) => {
      const remembered: Held = new Map();
      return {
        capabilities: { shared: true },
        store: (objects, options) => {
          for (const { key } of objects) remembered.delete(key.id);
          return mapAdapter(disk).store(objects, options);
        },
        load: (objects) =>
          Promise.resolve(Bitmap.from(objects, ({ key: { id }, parts }) => {
            const bytes = remembered.get(id) ?? disk.get(id);
            if (bytes !== undefined) remembered.set(id, bytes);
            return fillParts(parts, bytes);
          })),
      };
    }),
  ],
  [
    "remembers that there was what another one has removed",
    ["if shared, another adapter with the same configuration sees replacements and removals"],
    onDisk((disk) => {
      const seen = new Set<string>();
      return {
        capabilities: { shared: true },
        lookupAndLock: (keys) =>
          Promise.resolve(Bitmap.from(keys, ({ id }) => {
            if (disk.has(id)) seen.add(id);
            return seen.has(id);
          })),
        load: async (objects, options) => {
          const loaded = await mapAdapter(disk).load(objects, options);
          for (const { key } of loaded.gather(objects)) seen.add(key.id);
          return loaded;
        },
        delete: (keys) => {
          let bytes = 0;
          const deleted = Bitmap.from(keys, ({ id }) => {
            seen.delete(id);
            bytes += disk.get(id)?.byteLength ?? 0;
            return disk.delete(id);
          });
          return Promise.resolve({ deleted, bytes });
        },
      };
    }),
  ],
  [
    "finds the first version again after a restart",
    ["replacements and removals survive a restart"],
    onDisk((disk) => {
      const held: Held = new Map(disk);
      return {
        ...mapAdapter(held),
        capabilities: { durable: true },
        store: (objects, options) => {
          for (const { key, parts } of objects) {
            if (!disk.has(key.id)) disk.set(key.id, concatParts(parts));
          }
          return mapAdapter(held).store(objects, options);
        },
      };
    }),
  ],
  [
    "fills the parts of a load that was given up",
    ["an aborted load does not write to the parts after it settles"],
    onDisk((disk) => ({
      load: async (objects, options) => {
        const { signal } = options;
        if (signal.aborted) return new Bitmap(objects.length);
        const isGivenUp = await Promise.race([aborting(signal), turn().then(() => false)]);
        const late = turn().then(() => mapAdapter(disk).load(objects, options));
        return isGivenUp ? new Bitmap(objects.length) : await late;
      },
    })),
  ],
  [
    "reads the parts of a store that was given up",
    ["an aborted store does not read the parts after it settles"],
    onDisk((disk) => ({
      store: async (objects, options) => {
        const { signal } = options;
        const isGivenUp = await Promise.race([aborting(signal), turn().then(() => false)]);
        if (!isGivenUp) return await mapAdapter(disk).store(objects, options);
        turn().then(() => mapAdapter(disk).store(objects, options));
        return { stored: new Bitmap(objects.length), bytes: 0 };
      },
    })),
  ],
  [
    "rejects lookups that are aborted",
    ["aborted lookups and removals settle and leave no partial objects"],
    onDisk((disk) => ({
      lookupAndLock: async (keys, options) => {
        const { signal } = options;
        const wasAborted = signal.aborted;
        await turn();
        if (!wasAborted) signal.throwIfAborted();
        return await mapAdapter(disk).lookupAndLock(keys, options);
      },
    })),
  ],
  [
    "tells of objects that are not there yet",
    ["calls onLoaded only for objects whose parts are filled"],
    onDisk((disk) => ({
      load: (objects, options) => {
        for (const index of objects.keys()) options.onLoaded?.(index);
        return mapAdapter(disk).load(objects, options);
      },
    })),
  ],
  [
    "cannot list again when a listing was left",
    ["a listing can be ended early or aborted"],
    complete((adapter) => {
      let isListing = false;
      return {
        async *list(options) {
          if (isListing) throw new Error("There is a cursor already");
          isListing = true;
          yield* adapter.list(options);
          isListing = false;
        },
      };
    }),
  ],
  [
    "lists in pages that are counted from the start",
    ["a listing is complete while listed objects are removed"],
    complete((adapter) => ({
      async *list(options) {
        for (let start = 0;; start += 5) {
          const page = (await Array.fromAsync(adapter.list(options))).slice(start, start + 5);
          yield* page;
          if (page.length === 0) return;
        }
      },
    })),
  ],
  [
    "counts the bytes of a key that is named twice twice",
    ["deleting a key twice in one call frees its bytes once"],
    complete((adapter) => ({
      delete: async (keys, options) => {
        const sizes = new Map([...adapter.held].map(([id, { byteLength }]) => [id, byteLength]));
        const { deleted } = await adapter.delete(keys, options);
        const gone = keys.filter(({ id }) => sizes.has(id) && !adapter.held.has(id));
        return { deleted, bytes: gone.reduce((sum, { id }) => sum + (sizes.get(id) ?? 0), 0) };
      },
    })),
  ],
];

/** Resolves when a signal aborts. */
function aborting(signal: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  signal.addEventListener("abort", () => resolve(true), { once: true });
  return promise;
}

for (const [what, promises, options] of BROKEN) {
  Deno.test(`the conformance suite says what is wrong with an adapter: ${what}`, async () => {
    assertEquals(await failedCases(options), promises.toSorted());
  });
}

Deno.test("the conformance suite sees calls that do not end when the adapter closes", async () => {
  const name = "calls in flight during closing settle and leave no partial objects";
  const module = moduleOf(() => {
    let isClosed = false;
    return wrapAdapter(mapAdapter(), {
      lookupAndLock: async (keys) => {
        await turn();
        return isClosed ? await new Promise<Bitmap>(() => {}) : new Bitmap(keys.length);
      },
      [Symbol.asyncDispose]: () => {
        isClosed = true;
        return Promise.resolve();
      },
    });
  });
  const options = { module, deadlineMs: 200 };
  assertEquals(await failedCases(options, (asked) => asked === name), [name]);
});
