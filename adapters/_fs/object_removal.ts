import { within } from "../../src/base/clock.ts";
import { DirectoryCount, type DirectoryCountOptions } from "./directory_count.ts";
import { Evictor, type EvictorOptions, type Removed } from "./evictor.ts";
import { OldestFiles } from "./oldest_files.ts";

/** Interval at which the goal is checked again, in milliseconds. */
const CHECK_INTERVAL_MS = 100;
/** Bytes that represent one object when a number of objects is the goal. */
const OBJECT_BYTES = 4096;

/** Goal and callbacks of a removal, least recently used objects first. */
export interface FileRemoval {
  /**
   * Bytes still to remove; not above 0 if a count must decide first; `undefined` if the goal is
   * reached.
   */
  readonly wanted: () => number | undefined;
  /** Whether to remove objects before a walk has shown which are the oldest. */
  readonly isUrgent: () => boolean;
  /** Called with the removed objects, and the id of the ledger before their removal. */
  readonly removed: (removed: Removed, ledgerId: string | undefined) => Promise<void>;
  /** Walks through the directory when the oldest objects are unknown. */
  readonly walk: () => Promise<unknown>;
}

/** Options of an {@linkcode ObjectRemoval}. */
export interface ObjectRemovalOptions
  extends Omit<EvictorOptions, "oldest">, Omit<DirectoryCountOptions, "oldest"> {
  /** Writes pending times of use. */
  readonly flushUseTimes: () => Promise<void>;
  /** Id of the directory's ledger. */
  readonly ledgerId: () => string | undefined;
  /** The running count, if any, which includes a walk. */
  readonly counting: () => Promise<void> | undefined;
}

/** Removes the least recently used objects of a directory, as far as they are known. */
export class ObjectRemoval {
  readonly directory: DirectoryCount;
  readonly evictor: Evictor;
  readonly #options: ObjectRemovalOptions;
  readonly #oldest = new OldestFiles();

  constructor(options: ObjectRemovalOptions) {
    this.#options = options;
    this.directory = new DirectoryCount({ ...options, oldest: this.#oldest });
    this.evictor = new Evictor({ ...options, oldest: this.#oldest });
  }

  /** Whether a walk or count is about to show the oldest objects and their number. */
  get isBusy(): boolean {
    return this.#options.counting() !== undefined || this.directory.isWalking;
  }

  /** Removes objects until the goal is reached or none is left. */
  async run({ wanted, isUrgent, removed, walk }: FileRemoval): Promise<void> {
    const { flushUseTimes, ledgerId, signal, onError } = this.#options;
    await flushUseTimes();
    let hasWalked = false;
    for (let bytes = wanted(); bytes !== undefined && !signal.aborted; bytes = wanted()) {
      const candidates = !this.isBusy || isUrgent() ? this.#oldest.take(bytes) : [];
      if (candidates.length > 0) {
        const id = ledgerId();
        await removed(await this.evictor.remove(candidates), id);
      } else if (this.isBusy) {
        await this.#waitForProgress();
      } else if (!hasWalked) {
        hasWalked = true;
        walk().catch(onError);
      } else {
        break;
      }
    }
    this.#oldest.putBack();
  }

  /** Waits for progress of a walk or count, but not long, because a walk may hang. */
  async #waitForProgress(): Promise<void> {
    const { counting, clock } = this.#options;
    const waits = [this.directory.progress(), counting()?.catch(() => {})];
    await within(
      clock,
      Promise.race(waits.filter((each) => each !== undefined)),
      CHECK_INTERVAL_MS,
    );
  }

  /**
   * Removes a share of the bytes and of the objects, because the disk is out of bytes or inodes.
   *
   * @param options.used Bytes used, if known.
   */
  async freeShare({ share, leastBytes, used, removed }: {
    readonly share: number;
    readonly leastBytes: number;
    readonly used: number | undefined;
    readonly removed: FileRemoval["removed"];
  }): Promise<void> {
    const freed = { bytes: 0, objects: 0 };
    const wantedBytes = (): number =>
      Math.max(leastBytes, share * (used ?? this.directory.totals?.diskBytes ?? 0));
    const wantedObjects = (): number => Math.max(2, share * (this.directory.totals?.objects ?? 0));
    using lock = await this.evictor.lock((now) => now <= (used ?? 0) - wantedBytes());
    if (lock === undefined) return;
    await this.run({
      wanted: () => {
        const objects = Math.ceil(wantedObjects() - freed.objects);
        const wanted = Math.max(wantedBytes() - freed.bytes, OBJECT_BYTES * objects);
        if (wanted > 0) return wanted;
        // The size of a share is known only after the walk.
        return this.directory.isWalking ? OBJECT_BYTES : undefined;
      },
      isUrgent: () => freed.bytes < leastBytes || freed.objects < 2,
      removed: async (gone, ledgerId) => {
        freed.bytes += gone.bytes;
        freed.objects += gone.objects;
        await removed(gone, ledgerId);
      },
      walk: () => this.directory.walk(),
    });
  }
}
