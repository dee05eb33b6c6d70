// The suite must see what is wrong with an adapter: each of these breaks one promise.
import { assertEquals } from "@std/assert";
import {
  AdapterError,
  type AdapterObject,
  Bitmap,
  concatParts,
  type DeleteResult,
  fillParts,
  type L2Adapter,
  type ObjectKey,
} from "../../../src/adapter/contract.ts";
import { adapterConformanceCases, type ConformanceSetup } from "../../../src/testing/mod.ts";
import { mapAdapter, moduleOf } from "../../support/adapters.ts";

type Held = Map<string, Uint8Array<ArrayBuffer>>;
type OnError = (error: AdapterError) => void;

/** What is wrong, which promises that breaks, and how to do it to an adapter that works. */
const BROKEN: readonly [string, string[], (held: Held, onError: OnError) => Partial<L2Adapter>][] =
  [
    ["keeps the caller's buffers", [
      "changes to the caller's buffers after a store have no effect",
    ], () => {
      const kept = new Map<string, AdapterObject>();
      return {
        store: (objects) => {
          for (const object of objects) kept.set(object.key.id, object);
          return storedAll(objects);
        },
        lookupAndLock: (keys) => Promise.resolve(Bitmap.from(keys, ({ id }) => kept.has(id))),
        load: (objects) =>
          bitsOf(objects, ({ key, parts }) => {
            const object = kept.get(key.id);
            return object !== undefined && fillParts(parts, concatParts(object.parts));
          }),
      };
    }],
    ["detaches the caller's buffers", ["store neither changes nor detaches the parts"], (held) => ({
      store: async (objects, options) => {
        const result = await mapAdapter(held).store(objects, options);
        for (const { parts } of objects) {
          for (const { buffer } of parts) {
            structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
          }
        }
        return result;
      },
    })],
    ["clears the caller's buffers", ["store neither changes nor detaches the parts"], (held) => ({
      store: async (objects, options) => {
        const result = await mapAdapter(held).store(objects, options);
        for (const { parts } of objects) for (const part of parts) part.fill(0);
        return result;
      },
    })],
    ["writes beyond the parts", ["load writes only into the parts"], (held) => ({
      load: (objects) =>
        bitsOf(objects, ({ key, parts }) => {
          const isFilled = fillParts(parts, held.get(key.id));
          for (const { buffer, byteOffset, byteLength } of isFilled ? parts : []) {
            new Uint8Array(buffer).fill(0, byteOffset + byteLength);
          }
          return isFilled;
        }),
    })],
    ["serves the head of a longer object", [
      "a load of another length than the stored object is a miss",
    ], (held) => ({
      load: (objects) =>
        bitsOf(objects, ({ key, parts, byteLength }) => {
          const bytes = held.get(key.id) ?? new Uint8Array();
          return fillParts(parts, bytes.slice(0, Math.min(byteLength, bytes.byteLength)));
        }),
    })],
    ["gives up a whole batch for one object", [
      "load answers for each object of a mixed batch",
      "an object of another length in a batch affects no other object",
    ], (held) => ({
      load: async (objects, options) => {
        const bits = await mapAdapter(held).load(objects, options);
        return bits.popcount() === objects.length ? bits : new Bitmap(objects.length);
      },
    })],
    ["ignores the salt", ["keys that differ in one field are never confused"], (held) => {
      return renamed(
        held,
        (key) => `${key.model}@${key.kvRank}@${key.objectGroup}@${key.chunkHashHex}`,
      );
    }],
    ["ignores the rank", ["keys that differ in one field are never confused"], (held) => {
      return renamed(
        held,
        (key) => `${key.model}@${key.objectGroup}@${key.chunkHashHex}@${key.cacheSalt}`,
      );
    }],
    [
      "spells a slash in another way",
      ["hostile model names are never confused"],
      (held) => {
        return renamed(held, ({ id }) => id.replaceAll("/", "-SEP-"));
      },
    ],
    ["cuts long names", ["hostile model names are never confused"], (held) => {
      return renamed(held, ({ id, model }) => model.slice(0, 255) + id.slice(model.length));
    }],
    ["rejects for a missing object", ["load of a missing object is a miss"], (held) => ({
      load: (objects, options) => {
        const isMissing = objects.some(({ key }) => !held.has(key.id));
        return isMissing
          ? Promise.reject(new Error("No such object"))
          : mapAdapter(held).load(objects, options);
      },
    })],
    ["reports a miss as a failure", ["load of a missing object is a miss"], (held, onError) => ({
      load: (objects, options) => {
        for (const { key } of objects) {
          if (held.has(key.id)) continue;
          onError(
            new AdapterError({ adapter: "hand_made", operation: "load", key, cause: "gone" }),
          );
        }
        return mapAdapter(held).load(objects, options);
      },
    })],
    ["finds everything", [
      "lookup finds exactly the stored objects",
      "lookup of a chain finds the end of its prefix",
      "lookup of a chain claims a missing key at most once",
    ], () => ({
      lookupAndLock: (keys) => Promise.resolve(new Bitmap(keys.length, keys.length)),
    })],
    ["takes a chain for complete if its end is there", [
      "lookup of a chain claims a missing key at most once",
    ], (held) => ({
      lookupAndLock: (keys, { prefix }) => {
        const last = keys.findLastIndex(({ id }) => held.has(id));
        return Promise.resolve(
          prefix ? new Bitmap(keys.length, last + 1) : Bitmap.from(keys, ({ id }) => held.has(id)),
        );
      },
    })],
    ["says that it stored what it did not", ["returns an object in one part"], () => ({
      store: storedAll,
    })],
    ["does not replace", ["storing an object again replaces it"], (held) => ({
      store: (objects, options) =>
        mapAdapter(held).store(objects.filter(({ key }) => !held.has(key.id)), options)
          .then(() => storedAll(objects)),
    })],
    ["shows objects before they are complete", [
      "concurrent stores and loads of the same keys return whole objects",
    ], (held) => ({
      store: async (objects) => {
        for (const { key, parts, byteLength } of objects) {
          const bytes = new Uint8Array(byteLength);
          held.set(key.id, bytes);
          let offset = 0;
          for (const part of parts) {
            bytes.set(part, offset);
            offset += part.byteLength;
            await Promise.resolve();
          }
        }
        return await storedAll(objects);
      },
    })],
    ["counts what it stored wrongly", ["reports the objects and bytes that it stored"], (held) => ({
      store: async (objects, options) => {
        const { stored } = await mapAdapter(held).store(objects, options);
        return { stored, bytes: 0 };
      },
    })],
    ["cannot take nothing", ["accepts empty batches"], (held) => ({
      store: (objects, options) =>
        objects.length === 0
          ? Promise.reject(new RangeError("Empty batch"))
          : mapAdapter(held).store(objects, options),
    })],
    ["cannot unlock what is not locked", [
      "unlocking unknown or unlocked keys has no effect",
    ], (held) => ({
      unlock: (keys) => {
        for (const { id } of keys) if (!held.has(id)) throw new Error("Not locked");
      },
    })],
    ["says that everything was deleted", [
      "delete removes objects, reports them and their bytes, and can be repeated",
    ], (held) => ({
      delete: (keys) => {
        const { bytes } = deleteFrom(held, keys);
        return Promise.resolve({ deleted: new Bitmap(keys.length, keys.length), bytes });
      },
    })],
    ["deletes nothing", [
      "delete removes objects, reports them and their bytes, and can be repeated",
      "a deleted object can be stored again",
      "delete of a locked object either removes it or leaves it whole",
    ], (held) => ({
      delete: (keys) => Promise.resolve(deleteFrom(new Map(held), keys)),
    })],
    ["counts what it deleted wrongly", [
      "delete removes objects, reports them and their bytes, and can be repeated",
      "a deleted object can be stored again",
    ], (held) => ({
      delete: (keys) => Promise.resolve({ ...deleteFrom(held, keys), bytes: keys.length }),
    })],
    ["counts objects once more when they are stored again", [
      "usage counts objects and their bytes",
    ], (held) => {
      const counts = { usedBytes: 0, objectCount: 0 };
      return {
        store: async (objects, options) => {
          const result = await mapAdapter(held).store(objects, options);
          counts.objectCount += objects.length;
          counts.usedBytes += result.bytes;
          return result;
        },
        usage: () => Promise.resolve({ ...counts }),
      };
    }],
    ["has a status that is no JSON", ["reports its status as JSON"], () => ({
      reportStatus: () => ({ count: () => 1 }),
    })],
    ["has a status with a number that JSON does not have", ["reports its status as JSON"], () => ({
      reportStatus: () => ({ nested: [{ ratio: NaN }] }),
    })],
    ["forgets what it promised to keep", [
      "if shared, another adapter with the same configuration sees the objects",
      "if durable, objects survive a restart",
    ], () => ({ capabilities: { shared: true, durable: true } })],
  ];

function storedAll(
  objects: readonly AdapterObject[],
): Promise<{ stored: Bitmap; bytes: number }> {
  const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return Promise.resolve({ stored: new Bitmap(objects.length, objects.length), bytes });
}

function deleteFrom(held: Held, keys: readonly ObjectKey[]): DeleteResult {
  let bytes = 0;
  const deleted = Bitmap.from(keys, ({ id }) => {
    bytes += held.get(id)?.byteLength ?? 0;
    return held.delete(id);
  });
  return { deleted, bytes };
}

function bitsOf(
  objects: readonly AdapterObject[],
  test: (object: AdapterObject) => boolean,
): Promise<Bitmap> {
  return Promise.resolve(Bitmap.from(objects, test));
}

/** An adapter that calls objects what `nameOf` says. */
function renamed(held: Held, nameOf: (key: ObjectKey) => string): Partial<L2Adapter> {
  return {
    store: (objects) => {
      for (const { key, parts } of objects) held.set(nameOf(key), concatParts(parts));
      return storedAll(objects);
    },
    lookupAndLock: (keys) => Promise.resolve(Bitmap.from(keys, (key) => held.has(nameOf(key)))),
    load: (objects) => bitsOf(objects, ({ key, parts }) => fillParts(parts, held.get(nameOf(key)))),
  };
}

const noConfig = (): ConformanceSetup => ({ config: {} });

for (const [what, promises, breakIt] of BROKEN) {
  Deno.test(`the conformance suite detects an adapter that ${what}`, async () => {
    const module = moduleOf(({ onError }) => {
      const held: Held = new Map();
      return { ...mapAdapter(held), ...breakIt(held, onError) };
    });
    const failed: string[] = [];
    for (const { name, run } of adapterConformanceCases) {
      if (!promises.includes(name)) continue;
      await run({ module, config: noConfig }).catch(() => failed.push(name));
    }
    assertEquals(failed, promises);
  });
}

Deno.test("the conformance suite closes each adapter, then cleans up, also when a case fails", async () => {
  const events: string[] = [];
  const module = moduleOf(() => ({
    ...mapAdapter(),
    load: () => Promise.reject(new Error("broken")),
    [Symbol.asyncDispose]: () => Promise.resolve(void events.push("closed")),
  }));
  const config = () => ({
    config: {},
    [Symbol.asyncDispose]: () => Promise.resolve(void events.push("cleaned up")),
  });
  const [first] = adapterConformanceCases;
  let reason: unknown;
  await first?.run({ module, config }).catch((error: unknown) => reason = error);
  assertEquals(String(reason), "Error: broken");
  assertEquals(events, ["closed", "cleaned up"]);
});
