import { getLogger } from "@logtape/logtape";
import type { L1Cache, L1Listener, L1Pin, WrittenObject } from "../l1/l1_cache.ts";
import type { AdapterGuard, GuardedObject } from "../l2/adapter_guard.ts";
import { sealedBytes, sealObject, tailBytes } from "../l2/object_trailer.ts";
import type { MemoryDevice } from "../memory/memory_device.ts";
import type { Clock } from "../runtime/clock.ts";

/** How a {@linkcode StoreController} is set up. */
export interface StoreControllerOptions {
  /** Where objects come from. */
  readonly l1: L1Cache;
  /** Where they go: each object to all of them. */
  readonly adapters: readonly AdapterGuard[];
  /** Source of time. */
  readonly clock: Clock;
  /** Queued bytes at which a batch is written at once, and the size of a batch. */
  readonly flushBytes: number;
  /** Otherwise a batch is written when nothing was queued for this long. */
  readonly idleMs: number;
}

/** Counters of a {@linkcode StoreController}. */
export interface StoreStatus {
  /** Objects that wait to be written. */
  readonly pendingObjects: number;
  /** Their bytes. */
  readonly pendingBytes: number;
  /** Objects being written. */
  readonly inFlightObjects: number;
  /** Batches written so far. */
  readonly batches: number;
  /** Objects that left device memory before they could be written. */
  readonly droppedObjects: number;
  /** Batches that could not be read back from the device. */
  readonly failedReadBacks: number;
}

const logger = getLogger(["kvtier", "store"]);

/**
 * Writes what engines put into L1 through to the adapters, behind their backs and in batches: the
 * device is waited for once a batch, because each wait holds up the event loop until the device
 * is idle.
 */
export class StoreController implements L1Listener {
  readonly #l1: L1Cache;
  readonly #device: MemoryDevice;
  readonly #adapters: readonly AdapterGuard[];
  readonly #clock: Clock;
  readonly #flushBytes: number;
  readonly #idleMs: number;
  readonly #pending = new Map<string, WrittenObject>();
  #pendingBytes = 0;
  #inFlightObjects = 0;
  #batches = 0;
  #droppedObjects = 0;
  #failedReadBacks = 0;
  #cancelIdle = (): void => {};
  #drain: Promise<void> | undefined;

  /** Starts listening to L1. */
  constructor(options: StoreControllerOptions) {
    this.#l1 = options.l1;
    this.#device = options.l1.device;
    this.#adapters = options.adapters;
    this.#clock = options.clock;
    this.#flushBytes = options.flushBytes;
    this.#idleMs = options.idleMs;
    if (options.adapters.length > 0) options.l1.addListener(this);
  }

  /** Queues objects. */
  written(objects: readonly WrittenObject[]): void {
    for (const object of objects) {
      if (this.#pending.has(object.key.id)) continue;
      this.#pending.set(object.key.id, object);
      this.#pendingBytes += object.layout.byteLength;
    }
    this.#cancelIdle();
    if (this.#drain !== undefined) return;
    if (this.#pendingBytes >= this.#flushBytes) this.flush();
    else this.#cancelIdle = this.#clock.schedule(() => this.flush(), this.#idleMs);
  }

  /** Writes everything that is queued; resolves when every adapter has answered. */
  flush(): Promise<void> {
    this.#cancelIdle();
    return this.#drain ??= this.#writePending();
  }

  /** Counters now. */
  reportStatus(): StoreStatus {
    return {
      pendingObjects: this.#pending.size,
      pendingBytes: this.#pendingBytes,
      inFlightObjects: this.#inFlightObjects,
      batches: this.#batches,
      droppedObjects: this.#droppedObjects,
      failedReadBacks: this.#failedReadBacks,
    };
  }

  async #writePending(): Promise<void> {
    // The caller's own work of this turn goes first.
    await Promise.resolve();
    while (this.#pending.size > 0) {
      const pins = this.#takeBatch();
      if (pins.length === 0) continue;
      this.#inFlightObjects = pins.length;
      try {
        await this.#writeBatch(pins);
        this.#batches++;
      } catch (error) {
        this.#failedReadBacks++;
        logger.warn("Objects could not be read back: {error}", { error, count: pins.length });
      } finally {
        this.#inFlightObjects = 0;
      }
    }
    // In the same turn as the last look at the queue: what is queued from now on starts anew.
    this.#drain = undefined;
  }

  /** Pins the next objects that fit into one read-back. */
  #takeBatch(): L1Pin[] {
    const objects: WrittenObject[] = [];
    let bytes = 0;
    for (const object of this.#pending.values()) {
      objects.push(object);
      bytes += object.layout.byteLength;
      if (bytes >= this.#flushBytes) break;
    }
    const sizes = objects.map(({ key, layout }) => sealedBytes(key, layout));
    const batch = objects.slice(0, Math.max(1, this.#device.countReadable(sizes)));
    for (const { key, layout } of batch) {
      this.#pending.delete(key.id);
      this.#pendingBytes -= layout.byteLength;
    }
    const reservations = this.#l1.reserveRead(batch.map(({ key }) => key));
    const pins = reservations.flatMap((r) => r.status === "success" ? [r.pin] : []);
    this.#droppedObjects += batch.length - pins.length;
    return pins;
  }

  async #writeBatch(pins: readonly L1Pin[]): Promise<void> {
    using cleanup = new DisposableStack();
    cleanup.defer(() => this.#l1.finishRead(pins));
    const readBack = cleanup.use(
      await this.#device.readBack(
        pins.map(({ key, range }) => ({ range, tailBytes: tailBytes(key) })),
      ),
    );
    const objects: GuardedObject[] = [];
    for (const [i, pin] of pins.entries()) {
      const { key, layout } = pin;
      const parts = readBack.objects[i];
      // A pin that expired meanwhile protects nothing: what was read may be another object.
      if (parts === undefined || !this.#l1.isPinned(pin)) {
        this.#droppedObjects++;
        continue;
      }
      sealObject(key, layout, parts);
      objects.push({ key, layout, parts, byteLength: sealedBytes(key, layout) });
    }
    if (objects.length === 0) return;
    const outcomes = await Promise.all(this.#adapters.map((adapter) => adapter.store(objects)));
    const unsettled = outcomes.flatMap(({ settled }) => settled ?? []);
    if (unsettled.length === 0) return;
    // An adapter past its deadline may still read the buffers: nobody else gets them, or waits.
    readBack.abandon();
    const owned = cleanup.move();
    Promise.all(unsettled).then(() => owned.dispose());
  }
}
