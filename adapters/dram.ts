/**
 * The `dram` adapter: objects in host memory.
 *
 * @module
 */
import {
  AdapterError,
  type AdapterObject,
  Bitmap,
  defineL2Adapter,
  evictionField,
  fillParts,
  type L2Adapter,
  type L2AdapterModule,
  type ObjectKey,
  watermarksOf,
} from "../src/l2/adapter.ts";
import { type MemoryBounds, ObjectMemory } from "./_dram/object_memory.ts";

const GIB = 2 ** 30;
/** Beyond it, bytes are no safe integers. */
const MAX_GIB = 2 ** 22;

const config = {
  max_capacity_gb: {
    type: "number",
    exclusiveMinimum: 0,
    maximum: MAX_GIB,
    default: 1,
    help: "Most GiB of objects; what was used longest ago and is not locked leaves first.",
  },
  eviction: {
    ...evictionField,
    help: "How room is made: left out, only what a store needs is removed, when it needs it.",
  },
} as const;

/** Objects in host memory, which end with the process. */
const dram: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "dram",
  summary: "Objects in host memory, which end with the process.",
  config,
  create({ max_capacity_gb: capacity, eviction }, { onError }) {
    const capacityBytes = Math.floor(capacity * GIB);
    const watermarks = eviction === undefined ? { high: 1, low: 1 } : watermarksOf(eviction);
    return createDramAdapter(
      watermarks === undefined ? { capacityBytes } : {
        capacityBytes,
        highBytes: capacityBytes * watermarks.high,
        lowBytes: capacityBytes * watermarks.low,
      },
      onError,
    );
  },
});
export default dram;

function createDramAdapter(
  bounds: MemoryBounds,
  onError: (error: AdapterError) => void,
): L2Adapter {
  const { capacityBytes } = bounds;
  const memory = new ObjectMemory(bounds);
  let refusedStores = 0;
  let isClosed = false;

  const put = (object: AdapterObject): boolean => {
    let cause: unknown = new Error(
      `No room for ${object.byteLength} bytes: ${memory.usedBytes} of ${capacityBytes} are used, ` +
        `${memory.lockedObjects} objects are locked`,
    );
    try {
      if (memory.put(object)) return true;
    } catch (error) {
      cause = error;
    }
    refusedStores++;
    onError(new AdapterError({ adapter: "dram", operation: "store", key: object.key, cause }));
    return false;
  };
  const keysOf = (batch: readonly AdapterObject[]): ObjectKey[] => batch.map(({ key }) => key);

  return {
    capabilities: { evicts: true, maxObjectBytes: capacityBytes },
    store(batch, { signal }) {
      const stored = new Bitmap(batch.length);
      if (signal.aborted || isClosed) return Promise.resolve({ stored, bytes: 0 });
      const kept: ObjectKey[] = [];
      for (const object of batch) {
        // Until the end no object of the batch makes room for another.
        if (put(object) && memory.lock(object.key)) kept.push(object.key);
      }
      for (const key of kept) memory.unlock(key);
      memory.touch(kept);
      memory.shrink();
      let bytes = 0;
      const isKept = new Set(kept.map(({ id }) => id));
      for (const [index, { key, byteLength }] of batch.entries()) {
        if (!isKept.has(key.id) || memory.get(key)?.byteLength !== byteLength) continue;
        stored.set(index);
        bytes += byteLength;
      }
      return Promise.resolve({ stored, bytes });
    },
    lookupAndLock(keys, { prefix }) {
      const found = new Bitmap(keys.length);
      for (const [index, key] of keys.entries()) {
        if (memory.lock(key)) found.set(index);
        else if (prefix) break;
      }
      memory.touch(found.gather(keys));
      return Promise.resolve(found);
    },
    unlock(keys) {
      for (const key of keys) memory.unlock(key);
    },
    load(batch, { signal, onLoaded }) {
      const loaded = new Bitmap(batch.length);
      if (signal.aborted) return Promise.resolve(loaded);
      for (const [index, { key, parts }] of batch.entries()) {
        if (!fillParts(parts, memory.get(key))) continue;
        loaded.set(index);
        onLoaded?.(index);
      }
      memory.touch(keysOf(batch));
      return Promise.resolve(loaded);
    },
    delete(keys) {
      const before = memory.usedBytes;
      const deleted = Bitmap.from(keys, (key) => memory.remove(key));
      return Promise.resolve({ deleted, bytes: before - memory.usedBytes });
    },
    async *list({ model, signal }) {
      for (const object of memory.list()) {
        if (signal.aborted) return;
        if (model === undefined || object.key.model === model) yield object;
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
