import type { Clock } from "../../src/l2/adapter.ts";
import { knownCount } from "../_shared/file_info.ts";
import type { FileSystem } from "./file_system.ts";

/** Time for which the room on the disk is taken as known, in milliseconds. */
const ROOM_MS = 1_000;
/** Part of a disk, and bytes at most, that stay free although no bound says so. */
const RESERVE_SHARE = 1 / 32;
const LARGEST_RESERVE = 2 ** 30;

/** What stays free of a disk. */
export interface HeadroomBounds {
  /** Share of the disk that may be used, by anybody. */
  readonly diskHighWatermark?: number;
  /** Bytes of the disk that stay free. */
  readonly diskMinFreeBytes?: number;
  /** Whether some of the disk stays free if neither of these says how much. @default {false} */
  readonly keepsReserve?: boolean;
}

/** How {@linkcode DiskHeadroom} is set up. */
export interface DiskHeadroomOptions extends HeadroomBounds {
  /** The file operations. */
  readonly files: FileSystem;
  /** A directory on the disk. */
  readonly path: string;
  /** Source of time. */
  readonly clock: Clock;
}

/** How much may be added to a disk before it is too full, by all that write to it. */
export class DiskHeadroom {
  readonly #options: DiskHeadroomOptions;
  #known: { readonly mostUsed: number; readonly at: number } | undefined;

  /** The disk of a directory. */
  constructor(options: DiskHeadroomOptions) {
    this.#options = options;
  }

  /** Most bytes that the objects may take on this disk, as far as is known. */
  get mostUsed(): number {
    return this.#known?.mostUsed ?? Infinity;
  }

  /** Has the disk asked the next time. */
  forget(): void {
    if (this.#known !== undefined) this.#known = { ...this.#known, at: -Infinity };
  }

  /**
   * Most bytes that the objects may take on this disk, without limit where the disk does not tell.
   *
   * @param used What they take now.
   */
  async measure(used: number): Promise<number> {
    const { files, path, clock, diskHighWatermark, diskMinFreeBytes, keepsReserve } = this.#options;
    const isBound = diskHighWatermark !== undefined || diskMinFreeBytes !== undefined;
    if (!isBound && !keepsReserve) return Infinity;
    if (this.#known !== undefined && clock.now() - this.#known.at < ROOM_MS) {
      return this.#known.mostUsed;
    }
    const room = await files.room(path).catch((error: unknown) => {
      if (isBound) throw error;
      return undefined;
    });
    const occupied = knownCount(room?.usedBytes);
    const available = knownCount(room?.availableBytes);
    let headroom = Infinity;
    if (occupied !== undefined && available !== undefined && occupied + available > 0) {
      const total = occupied + available;
      const reserve = Math.min(RESERVE_SHARE * total, LARGEST_RESERVE);
      headroom = Math.min(
        available - (diskMinFreeBytes ?? (isBound ? 0 : reserve)),
        (diskHighWatermark ?? 1) * total - occupied,
      );
    }
    const mostUsed = Math.max(0, used + headroom);
    this.#known = { mostUsed, at: clock.now() };
    return mostUsed;
  }
}
