import { copyParts } from "../../src/base/byte_parts.ts";
import {
  type AdapterEnvironment,
  type AdapterObject,
  Bitmap,
  Capacity,
  type CapacityBounds,
  fillParts,
  fitsRoom,
  frontOfParts,
  type L2Adapter,
  type ObjectKey,
  type RemovalResult,
} from "../../src/adapter/contract.ts";
import { reportTo } from "./report.ts";

/** An object in host memory. */
interface MemoryObject {
  readonly key: ObjectKey;
  /** Bytes of the object. They are overwritten when the object is replaced or evicted. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Opens an adapter that keeps objects in host memory until it is closed.
 *
 * @param type Type of the adapter, for errors.
 */
export function openMemory(
  type: string,
  bounds: CapacityBounds,
  { clock, onError, onEvicted }: AdapterEnvironment,
): L2Adapter {
  const { capacityBytes } = bounds;
  const held = new Map<string, MemoryObject>();
  /** Memory of evicted objects, which the store in progress reuses. */
  let spare: Uint8Array<ArrayBuffer>[] = [];
  let refusedStores = 0;
  let isClosed = false;

  const remove = (keys: readonly ObjectKey[], isEvicted: boolean): RemovalResult[] =>
    keys.map(({ id }) => {
      const bytes = held.get(id)?.bytes;
      if (bytes === undefined) return "absent";
      held.delete(id);
      if (isEvicted) spare.push(bytes);
      return bytes.byteLength;
    });
  const capacity = new Capacity({
    adapter: type,
    bounds,
    remove: (keys, _, purpose) => Promise.resolve(remove(keys, purpose === "evict")),
    clock,
    onError,
    onEvicted,
  });
  const report = reportTo(type, onError);
  const isHeld = ({ key, byteLength }: AdapterObject): boolean =>
    held.get(key.id)?.bytes.byteLength === byteLength;
  const allocate = (byteLength: number): Uint8Array<ArrayBuffer> => {
    const index = spare.findLastIndex((bytes) => bytes.byteLength === byteLength);
    const [reused] = index < 0 ? [] : spare.splice(index, 1);
    return reused ?? new Uint8Array(byteLength);
  };
  /** Copies an object into memory. The copy is synchronous, so readers never see a part of it. */
  const put = (object: AdapterObject): boolean => {
    const { key, parts, byteLength } = object;
    try {
      const present = held.get(key.id)?.bytes;
      const bytes = present?.byteLength === byteLength ? present : allocate(byteLength);
      copyParts(parts, bytes);
      if (bytes !== present) held.set(key.id, { key, bytes });
      return true;
    } catch (cause) {
      report("store", cause, key);
      return false;
    }
  };
  return {
    capabilities: { evicts: true, acceptsShortObjects: true, maxObjectBytes: capacityBytes },
    async store(batch, { signal }) {
      const stored = new Bitmap(batch.length);
      let bytes = 0;
      if (signal.aborted || isClosed) return { stored, bytes };
      // Objects of the same size are overwritten in place: they need no room, and stay until then.
      const inPlace = Bitmap.from(batch, isHeld);
      const kept = inPlace.gather(batch).map(({ key }) => key);
      capacity.lock(kept);
      const added = inPlace.invert().gather(batch);
      const hasRoom = await capacity.reserve(added, signal);
      let next = 0;
      for (const [index, object] of batch.entries()) {
        const isAdded = !inPlace.test(index);
        const isFit = !isAdded || hasRoom[next++] === true;
        const isStored = isFit && !isClosed && put(object);
        if (isFit && isAdded) capacity.settle(object, isStored);
        if (isStored) {
          stored.set(index);
          bytes += object.byteLength;
          continue;
        }
        refusedStores++;
        const { usedBytes, lockedObjects } = capacity.reportStatus();
        const text = `No room for ${object.byteLength} bytes: ${usedBytes} of ${capacityBytes} ` +
          `are used, ${lockedObjects} objects are locked`;
        // The capacity reports an object that can never fit.
        if (!isFit && object.byteLength <= capacityBytes) {
          report("store", new Error(text), object.key);
        }
      }
      capacity.unlock(kept);
      capacity.renew(stored.gather(batch).map(({ key }) => key));
      capacity.maintain();
      spare = [];
      return { stored, bytes };
    },
    lookupAndLock(keys, { prefix }) {
      const present = Bitmap.from(keys, ({ id }) => held.has(id));
      const found = prefix ? new Bitmap(keys.length, present.countLeadingOnes()) : present;
      const locked = found.gather(keys);
      capacity.lock(locked);
      capacity.touch(locked);
      return Promise.resolve(found);
    },
    unlock: (keys) => capacity.unlock(keys),
    touch: (keys) => capacity.touch(keys),
    load(batch, { signal, onLoaded, allowShorter = false }) {
      const loaded = new Bitmap(batch.length);
      if (signal.aborted) return Promise.resolve(loaded);
      for (const [index, { key, parts, byteLength }] of batch.entries()) {
        const bytes = held.get(key.id)?.bytes;
        if (bytes === undefined) continue;
        if (!fitsRoom(bytes.byteLength, byteLength, allowShorter)) {
          onLoaded?.(index, "layout");
          continue;
        }
        if (!fillParts(frontOfParts(parts, bytes.byteLength), bytes)) continue;
        loaded.set(index);
        onLoaded?.(index);
      }
      capacity.renew(loaded.gather(batch).map(({ key }) => key));
      return Promise.resolve(loaded);
    },
    delete: (keys, call) => capacity.delete(keys, call),
    async *list({ model, signal }) {
      for (const { key, bytes: { byteLength } } of [...held.values()]) {
        if (signal.aborted) return;
        if (model === undefined || key.model === model) yield { key, byteLength };
      }
    },
    usage: (call) => capacity.usage(call),
    reportStatus: () => ({
      storedObjects: held.size,
      ...capacity.reportStatus(),
      refusedStores,
    }),
    [Symbol.asyncDispose]() {
      isClosed = true;
      held.clear();
      return capacity[Symbol.asyncDispose]();
    },
  };
}
