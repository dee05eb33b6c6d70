import { assertEquals } from "@std/assert";
import type { TieredCacheOptions } from "../../src/cache_options.ts";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { L2Adapter } from "../../src/adapter/contract.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import type { DeviceLoss } from "../../src/memory/memory_device.ts";
import type { CacheEventMap, CacheEvents, CacheEventType } from "../../src/telemetry/events.ts";
import type { TieredCache } from "../../src/tiered_cache.ts";
import { moduleOf } from "./adapters.ts";
import { testBytes } from "./objects.ts";

/** Options of a cache of 1 MiB in host memory, with one adapter per type, in that order. */
export function optionsOf(
  adapters: Readonly<Record<string, L2Adapter>>,
  options: TieredCacheOptions = {},
): TieredCacheOptions {
  return {
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 20 },
    adapters: Object.entries(adapters).map(([type, adapter]) => moduleOf(() => adapter, type)),
    l2: Object.keys(adapters).map((type) => ({ type })),
    ...options,
  };
}

/** Writes objects like an engine and returns those that fit. */
export function put(
  cache: TieredCache,
  keys: readonly ObjectKey[],
  layout: ObjectLayout,
): ObjectKey[] {
  const written = cache.reserveWrite(keys, layout).flatMap((reservation) => {
    if (reservation.status !== "success") return [];
    const { key, range } = reservation.staged;
    cache.device.upload(range, [testBytes(key, range.byteLength)]);
    return [reservation.staged];
  });
  cache.finishWrite(written);
  return written.map(({ key }) => key);
}

/** Asserts that a cache has no leases and no lent buffers. */
export function assertIdle(cache: TieredCache): void {
  const { l1, store, prefetch, lifecycle, adapters } = cache.reportStatus();
  assertEquals(
    {
      readLocked: l1.readLockedCount,
      staged: l1.stagingObjectCount,
      held: l1.heldCount,
      leaving: l1.leavingCount,
      pending: store.pendingObjects,
      inFlight: store.inFlightObjects,
      unsaved: store.unsavedObjects,
      requests: prefetch.activeRequests + prefetch.queuedRequests + prefetch.drainingRequests,
      loadBytes: prefetch.loadBytesInUse,
      forgetting: lifecycle.forgetting,
      adapterLocks: adapters.reduce((sum, { lockedKeys }) => sum + lockedKeys, 0),
    },
    {
      readLocked: 0,
      staged: 0,
      held: 0,
      leaving: 0,
      pending: 0,
      inFlight: 0,
      unsaved: 0,
      requests: 0,
      loadBytes: 0,
      forgetting: 0,
      adapterLocks: 0,
    },
  );
}

/** Records events of the given types. */
export function listen<Type extends CacheEventType>(
  events: CacheEvents,
  ...types: readonly Type[]
): [Type, CacheEventMap[Type]][] {
  const heard: [Type, CacheEventMap[Type]][] = [];
  for (const type of types) {
    events.addEventListener(type, ({ detail }) => heard.push([type, detail]));
  }
  return heard;
}

/** Host memory that can be lost like that of a GPU. */
export class LosableDevice extends HostDevice {
  override isLost = false;
  override readonly lost: Promise<DeviceLoss>;
  readonly #loss = Promise.withResolvers<DeviceLoss>();

  constructor() {
    super();
    this.lost = this.#loss.promise;
  }

  /** Loses the device and resolves `lost`. */
  async lose(message = "gone"): Promise<void> {
    this.isLost = true;
    this.#loss.resolve({ message });
    // The cache was notified first: it has been listening since it was opened.
    await this.lost;
  }
}
