import { builtInAdapters } from "../adapters/mod.ts";
import type { ObjectLayout } from "./keys/kv_layout.ts";
import type { ObjectKey } from "./keys/object_key.ts";
import { L1Cache, type L1Pin, type L1StatusReport, type WriteReservation } from "./l1/l1_cache.ts";
import { LruPolicy } from "./l1/lru.ts";
import type { AdapterEnvironment, L2AdapterModule } from "./l2/adapter.ts";
import { parseAdapterConfig } from "./l2/adapter_config.ts";
import {
  type AdapterSource,
  builtInAdapterSources,
  discoverAdapters,
} from "./l2/adapter_discovery.ts";
import { type AdapterError, ConfigError } from "./l2/adapter_error.ts";
import {
  AdapterGuard,
  type AdapterStatus,
  type AdapterTimeouts,
  DEFAULT_ADAPTER_TIMEOUTS,
} from "./l2/adapter_guard.ts";
import { AdapterRegistry } from "./l2/adapter_registry.ts";
import { sealedBytes } from "./l2/object_trailer.ts";
import { HostDevice } from "./memory/host_device.ts";
import {
  DeviceLostError,
  type MemoryDevice,
  type MemoryRange,
  RANGE_ALIGNMENT,
} from "./memory/memory_device.ts";
import { countThatFit, STAGING_BLOCK_BYTES, StagingPool } from "./memory/staging_pool.ts";
import { WebGpuDevice } from "./memory/webgpu_device.ts";
import { type Clock, systemClock } from "./runtime/clock.ts";
import {
  PrefetchController,
  type PrefetchOptions,
  type PrefetchStatus,
} from "./tiering/prefetch_controller.ts";
import { StoreController, type StoreStatus } from "./tiering/store_controller.ts";

const MIB = 2 ** 20;
const FINGERPRINT_BYTES = 8;

/** Configuration of one storage adapter: its type, and the keys that the type declares. */
export interface L2Config {
  /** Which adapter. */
  readonly type: string;
  /** The keys of that adapter. */
  readonly [key: string]: unknown;
}

/** Bounds of device memory. */
export interface L1Options {
  /** Most bytes of device memory for objects, a multiple of 256. @default {512 MiB} */
  readonly capacityBytes?: number;
  /** Bytes of one device buffer, unless an object needs a larger one. @default {256 MiB} */
  readonly slabBytes?: number;
  /** After this time an abandoned pin may be void. @default {300000} */
  readonly readTtlMs?: number;
  /** After this time an abandoned reservation may be reclaimed. @default {600000} */
  readonly writeTtlMs?: number;
}

/** Bounds of what moves between the tiers. */
export interface TransferOptions {
  /** Most bytes in read-back buffers; an object must fit. @default {128 MiB} */
  readonly readBackBytes?: number;
  /** Most bytes of host memory for loads; an object must fit. @default {128 MiB} */
  readonly loadBytes?: number;
  /** Bytes that are written to the adapters as one batch. @default {16 MiB} */
  readonly flushBytes?: number;
  /** What is queued is written after this much quiet. @default {50} */
  readonly flushIdleMs?: number;
}

/** How a {@linkcode TieredCache} is set up. */
export interface TieredCacheOptions {
  /**
   * Where L1 lies: your GPUDevice, which stays yours, or any {@linkcode MemoryDevice}. Left out, a
   * GPUDevice is requested, and where the host has none, host memory serves.
   */
  readonly device?: GPUDevice | MemoryDevice;
  /** Bounds of device memory. */
  readonly l1?: L1Options;
  /** The storage adapters, the preferred one first. @default {[]} */
  readonly l2?: readonly L2Config[];
  /** A directory of adapter modules beside those of this package. */
  readonly adaptersDir?: string | URL;
  /** Adapter modules beside those of this package. */
  readonly adapters?: readonly L2AdapterModule[];
  /** Deadlines of adapter calls. */
  readonly timeouts?: Partial<AdapterTimeouts>;
  /** Bounds of what moves between the tiers. */
  readonly transfers?: TransferOptions;
  /** Source of time. */
  readonly clock?: Clock;
}

/** State of a {@linkcode TieredCache}. */
export interface CacheStatus {
  /** Whether everything works. */
  readonly isHealthy: boolean;
  /** What does not, in words. */
  readonly problems: readonly string[];
  /** The device. */
  readonly device: {
    readonly type: string;
    readonly description: string;
    readonly isFallback: boolean;
    readonly isLost: boolean;
  };
  /** Device memory. */
  readonly l1: L1StatusReport;
  /** Writing through. */
  readonly store: StoreStatus;
  /** Loading. */
  readonly prefetch: PrefetchStatus;
  /** Bytes of host memory lent to loads. */
  readonly loadBytesInUse: number;
  /** The adapters. */
  readonly adapters: readonly AdapterStatus[];
}

/** The longest available prefix of a chain of objects, pinned until disposed. */
export class CacheHit implements Disposable {
  /** How many of the objects were in L1 before. */
  readonly l1Objects: number;
  readonly #pins: readonly L1Pin[];
  readonly #l1: L1Cache;

  /** @ignore Made by {@linkcode TieredCache.match}. */
  constructor(l1: L1Cache, pins: readonly L1Pin[], l1Objects: number) {
    this.#l1 = l1;
    this.#pins = pins;
    this.l1Objects = l1Objects;
  }

  /** Number of objects. */
  get length(): number {
    return this.#pins.length;
  }

  /**
   * Where the objects lie in device memory, in order; theirs until the hit is disposed, and no
   * longer than `l1.readTtlMs`.
   *
   * @throws {DeviceLostError} If the device was lost since.
   * @throws {Error} If the hit was disposed, or held for longer than pins live.
   */
  ranges(): MemoryRange[] {
    if (this.#l1.device.isLost) {
      throw new DeviceLostError("GPU device is lost: open the cache again with a new device");
    }
    if (!this.#pins.every((pin) => this.#l1.isPinned(pin))) {
      throw new Error("Hit is no longer pinned: it was disposed or expired; match again");
    }
    return this.#pins.map(({ range }) => range);
  }

  /** Gives up the pins. */
  [Symbol.dispose](): void {
    this.#l1.finishRead(this.#pins);
  }
}

/**
 * A cache of objects in two tiers: device memory (L1), and behind it storage adapters (L2) to which
 * everything is written through and from which it comes back. A hit is exactly what was stored
 * under that key, or it is a miss.
 */
export class TieredCache implements AsyncDisposable {
  /** Where L1 lies. */
  readonly device: MemoryDevice;
  readonly #l1: L1Cache;
  readonly #adapters: readonly AdapterGuard[];
  readonly #scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  readonly #store: StoreController;
  readonly #prefetch: PrefetchController;
  readonly #ownsDevice: boolean;
  readonly #closing: AbortController;
  readonly #knownLayouts = new WeakSet<ObjectLayout>();
  #closed: Promise<void> | undefined;

  private constructor(
    device: MemoryDevice,
    ownsDevice: boolean,
    l1: L1Cache,
    adapters: readonly AdapterGuard[],
    closing: AbortController,
    options: TieredCacheOptions,
  ) {
    const { clock = systemClock, transfers = {} } = options;
    this.device = device;
    this.#ownsDevice = ownsDevice;
    this.#l1 = l1;
    this.#adapters = adapters;
    this.#closing = closing;
    this.#scratch = new StagingPool({
      blockBytes: STAGING_BLOCK_BYTES,
      capacityBytes: transfers.loadBytes ?? 128 * MIB,
      create: () => new Uint8Array(STAGING_BLOCK_BYTES),
      destroy: () => {},
    });
    this.#store = new StoreController({
      l1,
      adapters,
      clock,
      flushBytes: transfers.flushBytes ?? 16 * MIB,
      idleMs: transfers.flushIdleMs ?? 50,
    });
    this.#prefetch = new PrefetchController({ l1, adapters, scratch: this.#scratch, clock });
    device.lost.then(() => l1[Symbol.dispose]());
  }

  /**
   * Opens a cache.
   *
   * Requires `--allow-read` permission for `adaptersDir` if that is given, and whatever the
   * adapters require.
   *
   * @throws {ConfigError} If an adapter is unknown or its configuration cannot work.
   * @throws {RangeError} If a size is out of range.
   */
  static async open(options: TieredCacheOptions = {}): Promise<TieredCache> {
    const { l2 = [], clock = systemClock, l1: l1Options = {} } = options;
    checkTransfers(options.transfers ?? {});
    const registry = await openAdapterRegistry(options);
    const configured: { module: L2AdapterModule; values: Record<string, never> }[] = [];
    for (const config of l2) {
      const module = await registry.resolve(checkedType(config));
      // The values have the types that this very module declares.
      const values = parseAdapterConfig(module, config) as Record<string, never>;
      configured.push({ module, values });
    }

    await using undo = new AsyncDisposableStack();
    const { capacityBytes = 512 * MIB } = l1Options;
    const { device, isOwned } = await openDevice(options, capacityBytes);
    if (isOwned) undo.use(device);
    const l1 = undo.use(
      new L1Cache({ ...l1Options, device, capacityBytes, clock, policy: new LruPolicy() }),
    );
    const closing = new AbortController();
    const guards: AdapterGuard[] = [];
    undo.defer(async () => {
      closing.abort();
      await Promise.all(guards.map((guard) => guard.close()));
    });
    for (const [index, { module, values }] of configured.entries()) {
      const early: AdapterError[] = [];
      const environment: AdapterEnvironment = {
        clock,
        signal: closing.signal,
        l1Memory: {
          type: device.type,
          maxObjectBytes: l1.maxObjectBytes,
          alignmentBytes: RANGE_ALIGNMENT,
        },
        onError: (error) => {
          const guard = guards[index];
          if (guard === undefined) early.push(error);
          else guard.reportError(error);
        },
      };
      const adapter = await module.create(values, environment);
      const timeouts = { ...DEFAULT_ADAPTER_TIMEOUTS, ...options.timeouts };
      const guard = new AdapterGuard(adapter, { index, type: module.type, clock, timeouts });
      for (const error of early) guard.reportError(error);
      guards.push(guard);
    }
    const cache = new TieredCache(device, isOwned, l1, guards, closing, options);
    undo.move();
    return cache;
  }

  /** Largest object that can be stored, in bytes. */
  get maxObjectBytes(): number {
    return this.#l1.maxObjectBytes;
  }

  /**
   * Reserves room in device memory for objects to be written. Fill the ranges by work on the
   * device's queue, then call {@linkcode finishWrite}, or {@linkcode cancelWrite}. After
   * `l1.writeTtlMs` the room may be given to another object: do not write to it any more.
   *
   * @returns For each key its range, or why there is none.
   * @throws {RangeError} If the objects are empty, misaligned or larger than the cache can move.
   */
  reserveWrite(keys: readonly ObjectKey[], layout: ObjectLayout): WriteReservation[] {
    this.#checkObjects(keys, layout);
    return this.#l1.reserveWrite(keys, layout);
  }

  /** Makes reserved objects visible and queues them for the adapters; keys in prefix order. */
  finishWrite(keys: readonly ObjectKey[]): void {
    this.#throwIfClosed();
    this.#l1.finishWrite(keys);
  }

  /** Gives up reserved objects. */
  cancelWrite(keys: readonly ObjectKey[]): void {
    this.#l1.finishWriteAndDelete(keys);
  }

  /** Pins those of the objects that are in device memory now, without asking the adapters. */
  pinResident(keys: readonly ObjectKey[]): Disposable {
    const reservations = this.#l1.reserveRead(keys);
    const pins = reservations.flatMap((r) => r.status === "success" ? [r.pin] : []);
    return { [Symbol.dispose]: () => void this.#l1.finishRead(pins) };
  }

  /** Counts as a use of those of the objects that are in device memory; keys in prefix order. */
  touch(keys: readonly ObjectKey[]): void {
    this.#l1.touch(keys);
  }

  /**
   * Brings the longest available prefix of a chain of objects into device memory and pins it.
   *
   * @param keys Keys of the chain, in order.
   * @param layout Layout of all objects.
   * @throws {RangeError} If the objects are empty, misaligned or larger than the cache can move.
   * @throws The reason of `options.signal` if that aborts.
   */
  async match(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    options: PrefetchOptions = {},
  ): Promise<CacheHit> {
    this.#checkObjects(keys, layout);
    const { pins, l1Objects } = await this.#prefetch.prefetch(keys, layout, options);
    return new CacheHit(this.#l1, pins, l1Objects);
  }

  /** Writes everything that is queued to the adapters; resolves when they have answered. */
  async flush(): Promise<void> {
    this.#throwIfClosed();
    await this.#store.flush();
  }

  /** Removes everything from device memory that is not pinned; the adapters keep it. */
  clearL1(): void {
    this.#l1.clear();
  }

  /** State now. */
  reportStatus(): CacheStatus {
    const { type, description, isFallback, isLost } = this.device;
    const l1 = this.#l1.reportStatus();
    const adapters = this.#adapters.map((adapter) => adapter.reportStatus());
    const problems = [
      ...(this.#closed === undefined ? [] : ["the cache is closed"]),
      ...(isLost ? ["the GPU device is lost"] : []),
      ...(l1.failedSlabCount === 0 ? [] : ["the device is out of memory"]),
      ...adapters.filter(({ isHealthy }) => !isHealthy).map(({ index, type, lastError }) =>
        `adapter ${index} (${type}) is failing: ${lastError}`
      ),
    ];
    return {
      isHealthy: problems.length === 0,
      problems,
      device: { type, description, isFallback, isLost },
      l1,
      store: this.#store.reportStatus(),
      prefetch: this.#prefetch.reportStatus(),
      loadBytesInUse: this.#scratch.lentBytes,
      adapters,
    };
  }

  /** Writes what is queued, closes the adapters and releases all memory; pins become void. */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  /** Closes the cache. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    await Promise.all([this.#store.flush(), this.#prefetch.idle()]);
    this.#closing.abort();
    await Promise.all(this.#adapters.map((adapter) => adapter.close()));
    this.#l1[Symbol.dispose]();
    this.#scratch[Symbol.dispose]();
    if (this.#ownsDevice) this.device[Symbol.dispose]();
  }

  #throwIfClosed(): void {
    if (this.#closed !== undefined) throw new Error("Cache is closed: open another");
  }

  #checkObjects(keys: readonly ObjectKey[], layout: ObjectLayout): void {
    this.#throwIfClosed();
    if (!this.#knownLayouts.has(layout)) {
      checkLayout(layout, this.maxObjectBytes);
      this.#knownLayouts.add(layout);
    }
    const size = keys.reduce(
      (most, key) => Math.max(most, sealedBytes(key, layout)),
      layout.byteLength,
    );
    const { blockBytes, capacityBytes } = this.#scratch;
    if (countThatFit([size], blockBytes, capacityBytes) === 0) {
      throw new RangeError(
        `Object of ${size} bytes must fit into transfers.loadBytes of ${capacityBytes}: raise that`,
      );
    }
    if (this.device.countReadable([size]) === 0) {
      throw new RangeError(
        `Object of ${size} bytes must fit into transfers.readBackBytes: raise that`,
      );
    }
  }
}

function checkTransfers({ readBackBytes, loadBytes }: TransferOptions): void {
  for (const [name, value] of Object.entries({ readBackBytes, loadBytes })) {
    if (value !== undefined && !(value >= STAGING_BLOCK_BYTES)) {
      throw new RangeError(
        `transfers.${name} must be at least ${STAGING_BLOCK_BYTES} bytes: received ${value}`,
      );
    }
  }
}

function checkLayout({ byteLength, fingerprint }: ObjectLayout, maxBytes: number): void {
  if (!Number.isSafeInteger(byteLength) || byteLength <= 0 || byteLength % 4 !== 0) {
    throw new RangeError(`Object must be a positive multiple of 4 bytes: received ${byteLength}`);
  }
  if (byteLength > maxBytes) {
    throw new RangeError(
      `Object must fit into device memory of ${maxBytes} bytes: received ${byteLength}`,
    );
  }
  if (fingerprint.byteLength !== FINGERPRINT_BYTES) {
    throw new RangeError(
      `Layout fingerprint must have ${FINGERPRINT_BYTES} bytes: received ${fingerprint.byteLength}`,
    );
  }
}

function checkedType(config: L2Config): string {
  if (typeof config?.type === "string") return config.type;
  throw new ConfigError({ adapter: "l2", expected: "objects with a text type", received: config });
}

async function openDevice(
  { device, transfers }: TieredCacheOptions,
  wantedBufferBytes: number,
): Promise<{ device: MemoryDevice; isOwned: boolean }> {
  const staging = transfers?.readBackBytes === undefined
    ? {}
    : { stagingBytes: transfers.readBackBytes };
  if (device === undefined) {
    const requested = await WebGpuDevice.request({ ...staging, wantedBufferBytes });
    return { device: requested ?? new HostDevice(), isOwned: true };
  }
  if ("createSlab" in device) return { device, isOwned: false };
  return { device: WebGpuDevice.adopt(device, staging), isOwned: true };
}

/** Where adapter modules are looked for, beside those of this package. */
export type AdapterPlaces = Pick<TieredCacheOptions, "adaptersDir" | "adapters">;

/**
 * The adapter modules that a cache with these options can use.
 *
 * @throws {ConfigError} If `adaptersDir` cannot be listed.
 */
export async function openAdapterRegistry(
  options: AdapterPlaces,
): Promise<AdapterRegistry> {
  const { adaptersDir, adapters = [] } = options;
  const given = adapters.map((module): AdapterSource => ({
    name: module.type,
    origin: "options.adapters",
    load: () => Promise.resolve({ default: module }),
  }));
  const found = adaptersDir === undefined ? [] : await listAdaptersDir(adaptersDir);
  const builtIn = await builtInAdapterSources(
    new URL("../adapters/", import.meta.url),
    builtInAdapters,
  );
  return new AdapterRegistry({ builtIn, custom: [...given, ...found] });
}

async function listAdaptersDir(directory: string | URL): Promise<AdapterSource[]> {
  try {
    return await discoverAdapters(directory);
  } catch (cause) {
    throw new ConfigError({
      adapter: "adaptersDir",
      expected: "a directory that can be listed",
      received: String(directory),
      cause,
    });
  }
}
