import { HostDevice } from "../../src/memory/host_device.ts";
import {
  type DeviceLoss,
  DeviceLostError,
  type MemoryRange,
  type ReadBack,
  type ReadBackRequest,
  type Slab,
} from "../../src/memory/memory_device.ts";
import {
  countThatFit,
  packObjects,
  STAGING_BLOCK_BYTES,
  StagingPool,
} from "../../src/memory/staging_pool.ts";
import type { Clock } from "../../src/base/clock.ts";
import type { SimRandom } from "./sim_random.ts";

const STAGING_BYTES = 4 * STAGING_BLOCK_BYTES;
/** Content of memory that has been freed. */
const POISON = 0xee;

/**
 * Device memory with slow read-backs that can be lost. Memory that is no longer in use is
 * overwritten: freed slabs, lost memory and returned read-back buffers.
 */
export class SimDevice extends HostDevice {
  override isLost = false;
  override readonly lost: Promise<DeviceLoss>;
  readonly #clock: Clock;
  readonly #random: SimRandom;
  readonly #slabs = new Set<Slab>();
  readonly #loss = Promise.withResolvers<DeviceLoss>();
  readonly #staging = new StagingPool<number>({
    blockBytes: STAGING_BLOCK_BYTES,
    capacityBytes: STAGING_BYTES,
    create: () => 0,
    destroy: () => {},
  });

  constructor(clock: Clock, random: SimRandom) {
    super();
    this.lost = this.#loss.promise;
    this.#clock = clock;
    this.#random = random;
  }

  /** Number of slabs that were not destroyed. */
  get slabCount(): number {
    return this.#slabs.size;
  }

  /** Bytes of read-back buffers that were neither returned nor abandoned. */
  get lentBytes(): number {
    return this.#staging.lentBytes;
  }

  /** Loses the device and its memory. */
  lose(): void {
    if (this.isLost) return;
    this.isLost = true;
    for (const slab of this.#slabs) poison(slab);
    this.#staging.close(lostError());
    this.#loss.resolve({ message: "simulated" });
  }

  override createSlab(byteLength: number): Slab {
    const slab = super.createSlab(byteLength);
    poison(slab);
    this.#slabs.add(slab);
    return slab;
  }

  override destroySlab(slab: Slab): void {
    if (!this.#slabs.delete(slab)) throw new Error("A slab was destroyed twice");
    poison(slab);
  }

  override upload(range: MemoryRange, pieces: readonly Uint8Array<ArrayBuffer>[]): void {
    if (!this.isLost) super.upload(range, pieces);
  }

  override countReadable(sizes: readonly number[]): number {
    return countThatFit(sizes, STAGING_BLOCK_BYTES, STAGING_BYTES);
  }

  override async readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack> {
    const sizes = requests.map(({ range, tailBytes }) => range.byteLength + tailBytes);
    const blocks = await this.#staging.acquire(
      packObjects(sizes, STAGING_BLOCK_BYTES).usedBytes.length,
    );
    if (this.isLost) throw lostError();
    // In queue order: later writes are not read.
    const { objects } = await super.readBack(requests);
    await new Promise<void>((resolve) =>
      void this.#clock.schedule(resolve, this.#random.magnitude(1, 200))
    );
    let isLent = true;
    let isDisposed = false;
    const release = (how: "release" | "abandon"): void => {
      if (isLent) this.#staging[how](blocks);
      isLent = false;
    };
    if (this.isLost) {
      release("abandon");
      throw lostError();
    }
    return {
      objects,
      abandon: () => release("abandon"),
      [Symbol.dispose]: () => {
        release("release");
        if (isDisposed) return;
        isDisposed = true;
        for (const piece of objects.flat()) piece.fill(POISON);
      },
    };
  }
}

function poison({ buffer }: Slab): void {
  (buffer as Uint8Array<ArrayBuffer>).fill(POISON);
}

function lostError(): DeviceLostError {
  return new DeviceLostError("Simulated device is lost");
}
