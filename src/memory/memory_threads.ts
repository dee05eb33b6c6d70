import type { Clock } from "../base/clock.ts";
import { IoWorkers } from "../base/io/io_workers.ts";
import { MIB } from "../base/units.ts";
import { HostDevice, setCopyThreads } from "./host_device.ts";
import type { MemoryDevice } from "./memory_device.ts";
import type { StagingPool } from "./staging_pool.ts";
import { warmBlocks } from "./warm_blocks.ts";

/** Starting a thread blocks this one for some 20 ms: first comes what the opening is for. */
const START_MS = 100;
/** Maximum bytes of staging blocks that are used once before they are needed. */
const WARM_BYTES = 32 * MIB;

/**
 * A thread that works on host memory in the place of the engine's thread: copies between L1 and
 * staging blocks where L1 is host memory, and the first use of staging blocks. It starts in the
 * background; where the host has no threads, nothing changes.
 */
export class MemoryThreads implements AsyncDisposable {
  readonly #scratch: StagingPool<Uint8Array>;
  readonly #workers: IoWorkers;
  readonly #clock: Clock;
  #device: MemoryDevice;
  #cancel: (() => void) | undefined;

  /**
   * Waits for {@linkcode start}.
   *
   * @param scratch Blocks for loads.
   */
  constructor(device: MemoryDevice, scratch: StagingPool<Uint8Array>, clock: Clock) {
    this.#device = device;
    this.#scratch = scratch;
    this.#clock = clock;
    this.#workers = new IoWorkers({ count: 1 });
  }

  /** Starts the thread some time later, unless that is under way. */
  start(): void {
    this.#cancel ??= this.#clock.schedule(() => void this.#start(), START_MS, { background: true });
  }

  /** Works for another device from now on. */
  attach(device: MemoryDevice): void {
    this.#device = device;
    if (this.#workers.isReady && device instanceof HostDevice) {
      setCopyThreads(device, this.#workers);
    }
  }

  /** Ends the thread; devices copy by themselves again. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancel?.();
    if (this.#device instanceof HostDevice) setCopyThreads(this.#device, undefined);
    await this.#workers.close();
  }

  async #start(): Promise<void> {
    const workers = this.#workers;
    await workers.start();
    this.attach(this.#device);
    await warmBlocks(this.#scratch, WARM_BYTES, workers);
    // On other devices there is nothing to copy.
    if (!(this.#device instanceof HostDevice)) await workers.close();
  }
}
