import type { Clock } from "../../src/adapter/contract.ts";
import { knownCount } from "../_shared/file_info.ts";
import type { FileSystem } from "./file_system.ts";

/** Time for which a measurement of the disk is reused, in milliseconds. */
const ROOM_MS = 1_000;
/** Default share of a disk that stays free, with a limit in bytes. */
const RESERVE_SHARE = 1 / 32;
const MAX_RESERVE = 2 ** 30;

/** Limits on the fill level of a disk. */
export interface HeadroomBounds {
  /** Share of the disk that may be used, including files of other programs. */
  readonly diskHighWatermark?: number;
  /** Bytes of the disk that stay free. */
  readonly diskMinFreeBytes?: number;
  /** Whether a default reserve stays free if neither limit is given. @default {false} */
  readonly keepsReserve?: boolean;
}

/** Options of {@linkcode DiskHeadroom}. */
export interface DiskHeadroomOptions extends HeadroomBounds {
  readonly files: FileSystem;
  /** A directory on the disk. */
  readonly path: string;
  readonly clock: Clock;
}

/** Measures how much may be added to a disk before it is too full, whichever programs fill it. */
export class DiskHeadroom {
  readonly #options: DiskHeadroomOptions;
  #measured: { readonly maxUsedBytes: number; readonly at: number } | undefined;

  constructor(options: DiskHeadroomOptions) {
    this.#options = options;
  }

  /** Max bytes of the objects on this disk, by the last measurement. */
  get maxUsedBytes(): number {
    return this.#measured?.maxUsedBytes ?? Infinity;
  }

  /** Discards the last measurement. */
  forget(): void {
    if (this.#measured !== undefined) this.#measured = { ...this.#measured, at: -Infinity };
  }

  /**
   * Max bytes of the objects on this disk; `Infinity` if the disk does not report its size.
   *
   * @param used Bytes that the objects take now.
   */
  async measure(used: number): Promise<number> {
    const { files, path, clock, diskHighWatermark, diskMinFreeBytes, keepsReserve } = this.#options;
    const isBound = diskHighWatermark !== undefined || diskMinFreeBytes !== undefined;
    if (!isBound && !keepsReserve) return Infinity;
    if (this.#measured !== undefined && clock.now() - this.#measured.at < ROOM_MS) {
      return this.#measured.maxUsedBytes;
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
      const reserve = Math.min(RESERVE_SHARE * total, MAX_RESERVE);
      headroom = Math.min(
        available - (diskMinFreeBytes ?? (isBound ? 0 : reserve)),
        (diskHighWatermark ?? 1) * total - occupied,
      );
    }
    const maxUsedBytes = Math.max(0, used + headroom);
    this.#measured = { maxUsedBytes, at: clock.now() };
    return maxUsedBytes;
  }
}
