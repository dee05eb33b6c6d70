/**
 * The `mock` adapter: host memory with a limited bandwidth, for tests and demonstrations.
 *
 * @module
 */
import { GIB } from "../src/base/units.ts";
import {
  type AdapterEnvironment,
  type AdapterObject,
  Bitmap,
  concatParts,
  type ConfigValues,
  defineL2Adapter,
  fillParts,
  fitsRoom,
  frontOfParts,
  type L2Adapter,
  type L2AdapterModule,
  type ObjectKey,
  wait,
} from "../src/adapter/contract.ts";

const config = {
  max_size_gb: {
    type: "number",
    required: true,
    exclusiveMinimum: 0,
    help: "Max GiB of objects; the least recently used ones that are not locked are evicted first.",
  },
  mock_bandwidth_gb: {
    type: "number",
    required: true,
    exclusiveMinimum: 0,
    help: "Bandwidth of stores and loads, in GiB/s.",
  },
} as const;

interface MockObject {
  readonly key: ObjectKey;
  readonly bytes: Uint8Array;
  locks: number;
}

/** Objects in host memory, with a limited bandwidth. */
const mock: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "mock",
  summary: "Host memory with a limited bandwidth, for tests and demonstrations.",
  config,
  capabilities: { evicts: true },
  create: createMockAdapter,
});
export default mock;

function createMockAdapter(
  config: ConfigValues<typeof mock.config>,
  { clock, onEvicted }: AdapterEnvironment,
): L2Adapter {
  const capacityBytes = Math.floor(config.max_size_gb * GIB);
  const bytesPerMs = config.mock_bandwidth_gb * GIB / 1000;
  /** The objects, least recently used first. */
  const objects = new Map<string, MockObject>();
  let usedBytes = 0;

  const remove = (object: MockObject): void => {
    objects.delete(object.key.id);
    usedBytes -= object.bytes.byteLength;
  };
  const use = ({ id }: ObjectKey): MockObject | undefined => {
    const object = objects.get(id);
    if (object === undefined) return undefined;
    objects.delete(id);
    objects.set(id, object);
    return object;
  };
  const makeRoom = (byteLength: number): boolean => {
    if (byteLength > capacityBytes) return false;
    const evicted: ObjectKey[] = [];
    for (const object of objects.values()) {
      if (usedBytes + byteLength <= capacityBytes) break;
      if (object.locks > 0) continue;
      remove(object);
      evicted.push(object.key);
    }
    if (evicted.length > 0) onEvicted?.(evicted);
    return usedBytes + byteLength <= capacityBytes;
  };
  const put = ({ key, parts, byteLength }: AdapterObject): boolean => {
    const present = objects.get(key.id);
    if (present !== undefined) remove(present);
    if (!makeRoom(byteLength)) {
      if (present !== undefined) onEvicted?.([key]);
      return false;
    }
    objects.set(key.id, { key, bytes: concatParts(parts), locks: present?.locks ?? 0 });
    usedBytes += byteLength;
    return true;
  };
  const sum = (batch: readonly AdapterObject[]): number =>
    batch.reduce((total, { byteLength }) => total + byteLength, 0);

  return {
    capabilities: { evicts: true, acceptsShortObjects: true },
    async store(batch, { signal }) {
      await wait(clock, sum(batch) / bytesPerMs, signal);
      const taken = new Set(
        batch.filter((each) => !signal.aborted && put(each)).map(({ key }) => key.id),
      );
      // An object of the batch may have been evicted for a later one.
      const stored = Bitmap.from(batch, ({ key }) => taken.has(key.id) && objects.has(key.id));
      return { stored, bytes: sum(stored.gather(batch)) };
    },
    lookupAndLock(keys) {
      return Promise.resolve(Bitmap.from(keys, (key) => {
        const object = use(key);
        if (object !== undefined) object.locks++;
        return object !== undefined;
      }));
    },
    unlock(keys) {
      for (const key of keys) {
        const object = objects.get(key.id);
        if (object !== undefined && object.locks > 0) object.locks--;
      }
    },
    touch(keys) {
      // Reversed: the front of a chain becomes the most recently used.
      for (const key of keys.toReversed()) use(key);
    },
    async load(batch, { signal, onLoaded, allowShorter = false }) {
      await wait(clock, sum(batch) / bytesPerMs, signal);
      return Bitmap.from(batch, ({ key, parts, byteLength }, index) => {
        const bytes = use(key)?.bytes;
        if (signal.aborted || bytes === undefined) return false;
        if (!fitsRoom(bytes.byteLength, byteLength, allowShorter)) {
          onLoaded?.(index, "layout");
          return false;
        }
        return fillParts(frontOfParts(parts, bytes.byteLength), bytes);
      });
    },
    delete(keys) {
      const before = usedBytes;
      const deleted = Bitmap.from(keys, (key) => {
        const object = objects.get(key.id);
        if (object === undefined || object.locks > 0) return false;
        remove(object);
        return true;
      });
      return Promise.resolve({ deleted, bytes: before - usedBytes });
    },
    async *list({ model }) {
      for (const { key, bytes } of [...objects.values()]) {
        if (model === undefined || key.model === model) {
          yield { key, byteLength: bytes.byteLength };
        }
      }
    },
    usage: () => Promise.resolve({ usedBytes, capacityBytes, objectCount: objects.size }),
    reportStatus: () => ({
      storedObjectCount: objects.size,
      lockedKeyCount: [...objects.values()].filter(({ locks }) => locks > 0).length,
      currentSizeBytes: usedBytes,
      maxCapacityBytes: capacityBytes,
    }),
    [Symbol.asyncDispose]() {
      objects.clear();
      usedBytes = 0;
      return Promise.resolve();
    },
  };
}
