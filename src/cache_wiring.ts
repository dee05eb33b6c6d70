import { getLogger } from "@logtape/logtape";
import { type ResolvedOptions, resolveOptions, type TieredCacheOptions } from "./cache_options.ts";
import { openAdapterRegistry } from "./known_adapters.ts";
import { type Clock, systemClock, within } from "./base/clock.ts";
import { systemRandom } from "./base/random.ts";
import { MIB } from "./base/units.ts";
import { EvictionController } from "./eviction/eviction_controller.ts";
import { QuotaRegistry } from "./eviction/quota_registry.ts";
import { AdapterManager } from "./hotplug/adapter_manager.ts";
import { checkConfig, type L2Config } from "./l2/adapter_config.ts";
import { L1Cache } from "./l1/l1_cache.ts";
import type { AdapterGuard } from "./l2/adapter_guard.ts";
import type { GuardListener } from "./l2/guard_listener.ts";
import type { AdapterRegistry } from "./l2/adapter_registry.ts";
import { AdapterSet } from "./l2/adapter_set.ts";
import { ForgetBarrier } from "./lifecycle/forget_barrier.ts";
import { KeyLifecycle } from "./lifecycle/key_lifecycle.ts";
import { alignedBytes } from "./memory/aligned_bytes.ts";
import { HostDevice } from "./memory/host_device.ts";
import { MemoryThreads } from "./memory/memory_threads.ts";
import { type MemoryDevice, RANGE_ALIGNMENT } from "./memory/memory_device.ts";
import { STAGING_BLOCK_BYTES, StagingPool } from "./memory/staging_pool.ts";
import { WebGpuDevice } from "./memory/webgpu_device.ts";
import { ObjectChecks } from "./object_checks.ts";
import { PrefetchController } from "./prefetch/prefetch_controller.ts";
import { UseReporter } from "./prefetch/use_reporter.ts";
import type { FlushReport } from "./store/flush_report.ts";
import { SkippedWrites } from "./store/skipped_writes.ts";
import { StoreController } from "./store/store_controller.ts";
import { CacheEvents } from "./telemetry/events.ts";

const logger = getLogger(["kvtier", "cache"]);

/** Default deadline of a close in milliseconds. */
const CLOSE_MS = 10_000;
/** Share of the deadline of a close for storing dirty objects and for loads in flight. */
const STORING_SHARE = 0.8;

/** A smaller L1 never copies enough at a time to be worth a message to another thread. */
const MIN_BYTES_FOR_THREADS = 16 * MIB;

/**
 * Phase of a cache, in this order:
 *
 * - `open`: it accepts calls.
 * - `storing`: it rejects calls, stores dirty objects and waits for loads in flight.
 * - `releasing`: adapters are closed and memory is released.
 * - `closed`: nothing is left.
 */
export type CachePhase = "open" | "storing" | "releasing" | "closed";

const NEXT_PHASE: Readonly<Record<CachePhase, CachePhase | undefined>> = {
  open: "storing",
  storing: "releasing",
  releasing: "closed",
  closed: undefined,
};

/** A device, and whether the cache has to release it. */
interface OpenedDevice {
  readonly device: MemoryDevice;
  readonly isOwned: boolean;
}

/**
 * The parts of a cache. Builds them, connects them, and owns them: they are opened and closed
 * nowhere else.
 */
export class CacheParts implements AsyncDisposable {
  readonly events: CacheEvents = new CacheEvents();
  readonly quota: QuotaRegistry = new QuotaRegistry();
  readonly adapters = new AdapterSet();
  readonly l1: L1Cache;
  /** Host memory for loads and migrations. */
  readonly scratch: StagingPool<Uint8Array>;
  readonly checks: ObjectChecks;
  readonly store: StoreController;
  readonly skipped: SkippedWrites;
  readonly prefetch: PrefetchController;
  readonly uses: UseReporter;
  readonly lifecycle: KeyLifecycle;
  readonly eviction: EvictionController;
  readonly manager: AdapterManager;
  readonly #threads: MemoryThreads;
  readonly #registry: AdapterRegistry;
  readonly #settings: ResolvedOptions;
  readonly clock: Clock;
  #ownsDevice: boolean;
  #phase: CachePhase = "open";
  #closed: Promise<FlushReport> | undefined;

  private constructor(
    { device, isOwned }: OpenedDevice,
    registry: AdapterRegistry,
    settings: ResolvedOptions,
    { clock = systemClock, random = systemRandom }: TieredCacheOptions,
  ) {
    const { events, quota, adapters } = this;
    const { l1: { watermark, eviction, ...l1Options }, store, prefetch, timeouts, breaker } =
      settings;
    this.#registry = registry;
    this.#settings = settings;
    this.clock = clock;
    this.#ownsDevice = isOwned;
    const barrier = new ForgetBarrier();
    const l1 = this.l1 = new L1Cache({
      ...l1Options,
      device,
      clock,
      policy: eviction,
      quotaOf: (salt) => quota.effective(salt).l1Bytes,
    });
    this.scratch = new StagingPool({
      blockBytes: STAGING_BLOCK_BYTES,
      capacityBytes: prefetch.maxInFlightBytes,
      create: () => alignedBytes(STAGING_BLOCK_BYTES),
      destroy: () => {},
    });
    this.#threads = new MemoryThreads(device, this.scratch, clock);
    // Where time is simulated, nothing may depend on other threads.
    if (clock === systemClock && l1.capacityBytes >= MIN_BYTES_FOR_THREADS) {
      adapters.onChange(({ all }) => all.length > 0 && this.#threads.start());
    }
    this.checks = new ObjectChecks(l1, this.scratch);
    this.store = new StoreController({
      ...store,
      idleMs: store.flushIdleMs,
      l1,
      adapters,
      clock,
      random,
      watermark: watermark ?? { high: 1, low: 1 },
      onDropped: (objects, reason) => events.emit("dropped", { objects, reason }),
    });
    barrier.addWriter(this.store);
    this.skipped = new SkippedWrites({
      clock,
      store: this.store,
      onSkipped: (objects, reason) => events.emit("skipped", { objects, reason }),
    });
    this.uses = new UseReporter(adapters, clock);
    this.prefetch = new PrefetchController({
      l1,
      adapters,
      scratch: this.scratch,
      policy: prefetch.policy,
      clock,
      barrier,
      onServed: (groups, result) => {
        this.uses.note(groups, result);
        this.store.served(groups, result.length);
      },
      onDeadline: (details) => events.emit("deadline", details),
    });
    this.lifecycle = new KeyLifecycle({ l1, adapters: () => adapters.all, clock, barrier });
    this.eviction = new EvictionController({
      l1,
      quotas: quota,
      clock,
      isPinned: (key) => l1.pinned.has(key.id),
      ...(watermark === undefined ? {} : { l1Watermark: watermark }),
    });
    this.manager = new AdapterManager({
      registry,
      adapters,
      store: this.store,
      eviction: this.eviction,
      scratch: this.scratch,
      clock,
      timeouts,
      breaker,
      barrier,
      l1Memory: () => ({
        type: l1.device.type,
        maxObjectBytes: l1.maxObjectBytes,
        alignmentBytes: RANGE_ALIGNMENT,
      }),
      listenerOf: (guard) => adapterEvents(events, guard),
      onRemoved: ({ id, type }) => events.emit("adapterremoved", { id, type }),
    });
    l1.addListener({ removed: (key, reason) => events.emit("removed", { key, reason }) });
    this.#watch(device);
  }

  /** Validates the options, then opens the device and the adapters. */
  static async open(options: TieredCacheOptions): Promise<CacheParts> {
    const settings = resolveOptions(options);
    const registry = await openAdapterRegistry(options);
    const configs = [];
    for (const [i, config] of (options.l2 ?? []).entries()) {
      configs.push(await checkConfig(registry, config, `l2[${i}]`));
    }
    await using undo = new AsyncDisposableStack();
    const opened = await openDevice(options.device, settings);
    if (opened.isOwned) undo.use(opened.device);
    const parts = undo.use(new CacheParts(opened, registry, settings, options));
    for (const config of configs) await parts.manager.add(config);
    undo.move();
    return parts;
  }

  /** Whether the cache accepts calls. */
  get isOpen(): boolean {
    return this.#phase === "open";
  }

  /** @throws {Error} If the cache does not accept calls any more. */
  throwIfClosed(): void {
    if (!this.isOpen) throw new Error("Cache is closed: open a new one");
  }

  /** Opens another adapter; returns its id. */
  async addAdapter(config: L2Config): Promise<number> {
    const id = await this.manager.add(await checkConfig(this.#registry, config));
    this.events.emit("adapteradded", { id, type: config.type });
    return id;
  }

  /** Replaces a lost device. */
  async attachDevice(device: GPUDevice | MemoryDevice | undefined): Promise<void> {
    this.#throwIfAttached();
    const opened = await openDevice(device, this.#settings);
    using undo = new DisposableStack();
    if (opened.isOwned) undo.use(opened.device);
    this.#throwIfAttached();
    const before = this.l1.device;
    this.l1.attach(opened.device);
    undo.move();
    if (this.#ownsDevice) before[Symbol.dispose]();
    this.#ownsDevice = opened.isOwned;
    this.#threads.attach(opened.device);
    this.#watch(opened.device);
    this.events.emit("deviceattached", { description: opened.device.description });
  }

  /** Stores dirty objects and releases everything; a second call returns the same report. */
  close(deadlineMs = CLOSE_MS): Promise<FlushReport> {
    return this.#closed ??= this.#close(deadlineMs);
  }

  /** Closes within the default deadline and logs which objects could not be stored. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { unwritten } = await this.close();
    for (const { adapter: { id, type }, reason, objects } of unwritten) {
      logger.warn("{objects} objects are not in adapter {id} ({type}): {reason}", {
        objects,
        id,
        type,
        reason,
      });
    }
  }

  async #close(deadlineMs: number): Promise<FlushReport> {
    const clock = this.clock;
    const endsAt = clock.now() + deadlineMs;
    // Everything is released even if a step fails, in reverse order.
    await using resources = new AsyncDisposableStack();
    resources.defer(() => this.#proceedTo("closed"));
    if (this.#ownsDevice) resources.defer(() => this.l1.device[Symbol.dispose]());
    resources.use(this.#threads);
    resources.use(this.scratch);
    resources.use(this.l1);
    resources.use(this.store);
    resources.defer(() => this.manager.close(endsAt - clock.now()));
    resources.use(this.uses);
    resources.use(this.eviction);
    resources.use(this.lifecycle);
    resources.defer(() => this.#proceedTo("releasing"));
    this.#proceedTo("storing");
    this.manager.stop();
    const storingMs = deadlineMs * STORING_SHARE;
    const [report] = await Promise.all([
      this.store.flush(storingMs),
      within(clock, this.prefetch.idle(), storingMs),
    ]);
    return report;
  }

  #proceedTo(phase: CachePhase): void {
    if (NEXT_PHASE[this.#phase] !== phase) {
      throw new Error(`A cache that is ${this.#phase} cannot become ${phase}`);
    }
    this.#phase = phase;
  }

  #throwIfAttached(): void {
    this.throwIfClosed();
    if (!this.l1.device.isLost) {
      throw new Error("The device is not lost: only a lost device can be replaced");
    }
  }

  #watch(device: MemoryDevice): void {
    device.lost.then(({ message }) => {
      if (this.l1.device !== device) return;
      this.l1.detach(message);
      if (this.isOpen) this.events.emit("devicelost", { message });
    });
  }
}

/** Resolves the device of a cache: the given one, or a requested one. */
async function openDevice(
  device: GPUDevice | MemoryDevice | undefined,
  { store }: ResolvedOptions,
): Promise<OpenedDevice> {
  const staging = { stagingBytes: store.maxInFlightBytes };
  if (device === undefined) {
    const requested = await WebGpuDevice.request(staging);
    return { device: requested ?? new HostDevice(), isOwned: true };
  }
  if ("createSlab" in device) return { device, isOwned: false };
  return { device: WebGpuDevice.adopt(device, staging), isOwned: true };
}

/** Reports what happens in an adapter as events of the cache. */
function adapterEvents(events: CacheEvents, { id, type }: AdapterGuard): GuardListener {
  const adapter = { id, type };
  return {
    stored: (objects) => {
      const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
      events.emit("stored", { adapter, objects: objects.length, bytes });
    },
    accessed: (keys) => events.emit("loaded", { adapter, objects: keys.length }),
    deleted: (keys, bytes) => events.emit("deleted", { adapter, objects: keys.length, bytes }),
    damaged: (key, fault) => events.emit("damaged", { adapter, key, fault }),
    called: (call) => events.emit("called", { adapter, ...call }),
    stateChanged: () => events.emit("adapterchanged", adapter),
  };
}
