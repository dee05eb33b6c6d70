/**
 * The `dram` adapter: objects in host memory.
 *
 * @module
 */
import { GIB, MAX_GIB } from "../src/base/units.ts";
import {
  AdapterError,
  type AdapterObject,
  Bitmap,
  defineL2Adapter,
  evictionField,
  fillParts,
  fitsRoom,
  frontOfParts,
  type L2Adapter,
  type L2AdapterModule,
  type ObjectKey,
  watermarksOf,
} from "../src/adapter/contract.ts";
import { type MemoryBounds, type MemoryObject, ObjectMemory } from "./_dram/object_memory.ts";

const config = {
  max_capacity_gb: {
    type: "number",
    exclusiveMinimum: 0,
    maximum: MAX_GIB,
    default: 1,
    help: "Max GiB of objects; the least recently used ones that are not locked are evicted first.",
  },
  eviction: {
    ...evictionField,
    help: "When to evict. Default: only when a store needs room, and only as much as it needs.",
  },
} as const;

/** Objects in host memory, which are lost when the process ends. */
const dram: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "dram",
  summary: "Objects in host memory, which are lost when the process ends.",
  config,
  capabilities: { evicts: true },
  create({ max_capacity_gb: capacity, eviction }, { onError, onEvicted }) {
    const capacityBytes = Math.floor(capacity * GIB);
    const watermarks = eviction === undefined ? { high: 1, low: 1 } : watermarksOf(eviction);
    return createDramAdapter(
      watermarks === undefined ? { capacityBytes } : {
        capacityBytes,
        highBytes: capacityBytes * watermarks.high,
        lowBytes: capacityBytes * watermarks.low,
      },
      onError,
      onEvicted,
    );
  },
});
export default dram;

function createDramAdapter(
  bounds: MemoryBounds,
  onError: (error: AdapterError) => void,
  onEvicted: (keys: readonly ObjectKey[]) => void = () => {},
): L2Adapter {
  const { capacityBytes } = bounds;
  const memory = new ObjectMemory(bounds);
  let refusedStores = 0;
  let isClosed = false;

  const refuse = (key: ObjectKey, cause: unknown): undefined => {
    refusedStores++;
    onError(new AdapterError({ adapter: "dram", operation: "store", key, cause }));
    return undefined;
  };
  const put = (object: AdapterObject): MemoryObject | undefined => {
    try {
      const entry = memory.put(object);
      if (entry !== undefined) return entry;
    } catch (cause) {
      return refuse(object.key, cause);
    }
    const { usedBytes, lockedObjects } = memory;
    const text = `No room for ${object.byteLength} bytes: ${usedBytes} of ${capacityBytes} are ` +
      `used, ${lockedObjects} objects are locked`;
    return refuse(object.key, new Error(text));
  };
  return {
    capabilities: { evicts: true, acceptsShortObjects: true, maxObjectBytes: capacityBytes },
    store(batch, { signal }) {
      const stored = new Bitmap(batch.length);
      if (signal.aborted || isClosed) return Promise.resolve({ stored, bytes: 0 });
      const entries = batch.map((object) => {
        const entry = put(object);
        // Locked until the end, so that no object of the batch evicts another.
        if (entry !== undefined) memory.lock(entry);
        return entry;
      });
      const kept = entries.filter((entry) => entry !== undefined);
      for (const entry of kept) memory.unlock(entry);
      memory.touch(kept);
      memory.shrink();
      const evicted = memory.takeEvicted();
      if (evicted.length > 0) onEvicted(evicted);
      let bytes = 0;
      for (const [index, { byteLength }] of batch.entries()) {
        const entry = entries[index];
        if (entry === undefined || !memory.has(entry)) continue;
        stored.set(index);
        bytes += byteLength;
      }
      return Promise.resolve({ stored, bytes });
    },
    lookupAndLock(keys, { prefix }) {
      const found = new Bitmap(keys.length);
      const entries: MemoryObject[] = [];
      for (const [index, key] of keys.entries()) {
        const entry = memory.get(key);
        if (entry !== undefined) {
          memory.lock(entry);
          entries.push(entry);
          found.set(index);
        } else if (prefix) break;
      }
      memory.touch(entries);
      return Promise.resolve(found);
    },
    unlock(keys) {
      for (const key of keys) {
        const entry = memory.get(key);
        if (entry !== undefined) memory.unlock(entry);
      }
    },
    touch(keys) {
      memory.touch(keys.flatMap((key) => memory.get(key) ?? []));
    },
    load(batch, { signal, onLoaded, allowShorter = false }) {
      const loaded = new Bitmap(batch.length);
      if (signal.aborted) return Promise.resolve(loaded);
      const entries: MemoryObject[] = [];
      for (const [index, { key, parts, byteLength }] of batch.entries()) {
        const entry = memory.get(key);
        if (entry === undefined) continue;
        const { bytes } = entry;
        if (!fitsRoom(bytes.byteLength, byteLength, allowShorter)) {
          onLoaded?.(index, "layout");
          continue;
        }
        if (!fillParts(frontOfParts(parts, bytes.byteLength), bytes)) continue;
        entries.push(entry);
        loaded.set(index);
        onLoaded?.(index);
      }
      memory.touch(entries);
      return Promise.resolve(loaded);
    },
    delete(keys) {
      const before = memory.usedBytes;
      const deleted = Bitmap.from(keys, (key) => memory.remove(key));
      return Promise.resolve({ deleted, bytes: before - memory.usedBytes });
    },
    async *list({ model, signal }) {
      for (const { key, bytes: { byteLength } } of memory.list()) {
        if (signal.aborted) return;
        if (model === undefined || key.model === model) yield { key, byteLength };
      }
    },
    usage: () =>
      Promise.resolve({
        usedBytes: memory.usedBytes,
        capacityBytes,
        objectCount: memory.objectCount,
      }),
    reportStatus: () => ({
      storedObjects: memory.objectCount,
      usedBytes: memory.usedBytes,
      capacityBytes,
      lockedObjects: memory.lockedObjects,
      evictedObjects: memory.evictedObjects,
      refusedStores,
    }),
    [Symbol.asyncDispose]() {
      isClosed = true;
      memory.clear();
      return Promise.resolve();
    },
  };
}
