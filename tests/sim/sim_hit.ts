import type { ObjectKey } from "../../src/keys/object_key.ts";
import { DeviceLostError, type MemoryRange } from "../../src/memory/memory_device.ts";
import { firstNeeded, type KeyGroup } from "../../src/prefetch/key_group.ts";
import type { CacheHit } from "../../src/cache_hit.ts";
import { isContentOf } from "./sim_content.ts";
import type { SimDevice } from "./sim_device.ts";
import { READ_TTL_MS } from "./sim_kinds.ts";
import type { Life, SimWorld } from "./sim_world.ts";

/** A hit that is held, and what it must contain. */
export class SimHit implements Disposable {
  readonly #world: SimWorld;
  readonly #life: Life;
  readonly #hit: CacheHit;
  readonly #rows: readonly KeyGroup[];
  readonly #device: SimDevice;
  readonly #startedAt: number;

  /** `startedAt` is the time of the request: no lease is older. */
  constructor(
    world: SimWorld,
    life: Life,
    hit: CacheHit,
    rows: readonly KeyGroup[],
    startedAt: number,
  ) {
    this.#world = world;
    this.#life = life;
    this.#hit = hit;
    this.#rows = rows;
    this.#device = life.device;
    this.#startedAt = startedAt;
  }

  /** Number of its chunks. */
  get length(): number {
    return this.#hit.length;
  }

  /** Keys of its objects, by group. */
  keys(): ObjectKey[][] {
    return this.#rows.map((row) => row.keys.slice(firstNeeded(row, this.length), this.length));
  }

  /**
   * Checks that every byte is right, or that the hit reports with good reason that it is no longer
   * valid.
   */
  check(when: string): void {
    for (const [r, keys] of this.keys().entries()) {
      const ranges = this.#ranges(r, when);
      if (ranges === undefined) return;
      if (ranges.length !== keys.length) {
        this.#world.fail(`a hit of ${keys.length} objects has ${ranges.length} ${when}`);
      }
      for (const [i, key] of keys.entries()) this.#checkBytes(key, r, ranges[i], when);
    }
  }

  [Symbol.dispose](): void {
    this.#hit[Symbol.dispose]();
  }

  get #isLost(): boolean {
    return this.#device.isLost || this.#life.device !== this.#device;
  }

  #ranges(row: number, when: string): MemoryRange[] | undefined {
    const { trace, clock } = this.#world;
    try {
      const ranges = this.#hit.ranges(row);
      if (this.#isLost) this.#world.fail(`a hit on a lost device is served ${when}`);
      return ranges;
    } catch (error) {
      const isOld = clock.now() - this.#startedAt >= READ_TTL_MS;
      const isRight = this.#isLost
        ? error instanceof DeviceLostError
        : isOld || this.#life.isClosing;
      if (!isRight) this.#world.fail(`a hit is refused ${when}`, error);
      trace.note(this.#isLost ? "hit on a lost device" : "hit expired");
      return undefined;
    }
  }

  #checkBytes(key: ObjectKey, row: number, range: MemoryRange | undefined, when: string): void {
    const bytes = (range?.buffer as Uint8Array<ArrayBuffer>)
      .subarray(range?.byteOffset, (range?.byteOffset ?? 0) + (range?.byteLength ?? 0));
    const isWhole = bytes.byteLength === this.#rows[row]?.layout.byteLength;
    if (!isWhole || !isContentOf(key, bytes)) this.#world.fail(`wrong bytes ${when}: ${key.id}`);
  }
}
