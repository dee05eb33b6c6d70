import { wait } from "../../src/l2/adapter.ts";
import { DirectoryCount, type DirectoryCountOptions } from "./directory_count.ts";
import { Evictor, type EvictorOptions, type Removed } from "./evictor.ts";
import { OldestFiles } from "./oldest_files.ts";

/** Time after which is looked again what is wanted, in milliseconds. */
const LOOK_MS = 100;
/** Bytes that stand for an object where objects are counted. */
const OBJECT_BYTES = 4096;

/** What is to be removed, the oldest first. */
export interface Removal {
  /** Bytes still to be removed, not above 0 if a count has to tell; `undefined` if it is enough. */
  readonly wanted: () => number | undefined;
  /** Whether the next ones are to be removed before a walk is over that shows which are oldest. */
  readonly isUrgent: () => boolean;
  /** Told what is gone, and the name of the account before. */
  readonly removed: (removed: Removed, account: string | undefined) => Promise<void>;
  /** Finds out what is oldest, when that is not known. */
  readonly walk: () => Promise<unknown>;
}

/** How an {@linkcode ObjectRemoval} is set up. */
export interface ObjectRemovalOptions
  extends Omit<EvictorOptions, "oldest">, Omit<DirectoryCountOptions, "oldest"> {
  /** Writes down the uses of objects that are still to be noted. */
  readonly noteUses: () => Promise<void>;
  /** Names the account of the directory. */
  readonly account: () => string | undefined;
  /** The count that goes on, which has a walk. */
  readonly counting: () => Promise<void> | undefined;
}

/** Removes the objects of a directory that were used longest ago, as far as that is known. */
export class ObjectRemoval {
  /** Finds the objects. */
  readonly directory: DirectoryCount;
  /** Removes them. */
  readonly evictor: Evictor;
  readonly #options: ObjectRemovalOptions;
  readonly #oldest = new OldestFiles();

  /** Removes objects in `paths`. */
  constructor(options: ObjectRemovalOptions) {
    this.#options = options;
    this.directory = new DirectoryCount({ ...options, oldest: this.#oldest });
    this.evictor = new Evictor({ ...options, oldest: this.#oldest });
  }

  /** Whether it is about to be known which objects are the oldest, and how many there are. */
  get isBusy(): boolean {
    return this.#options.counting() !== undefined || this.directory.isWalking;
  }

  /** Removes what is wanted, or all that there is. */
  async run({ wanted, isUrgent, removed, walk }: Removal): Promise<void> {
    const { noteUses, account, signal, onError } = this.#options;
    await noteUses();
    let hasWalked = false;
    for (let bytes = wanted(); bytes !== undefined && !signal.aborted; bytes = wanted()) {
      const victims = !this.isBusy || isUrgent() ? this.#oldest.take(bytes) : [];
      if (victims.length > 0) {
        const name = account();
        await removed(await this.evictor.remove(victims), name);
      } else if (this.isBusy) {
        await this.#news();
      } else if (!hasWalked) {
        hasWalked = true;
        walk().catch(onError);
      } else {
        break;
      }
    }
    this.#oldest.putBack();
  }

  /** Waits until more is known, or for a while: a walk may hang. */
  async #news(): Promise<void> {
    const { counting, clock } = this.#options;
    const over = new AbortController();
    const counted = counting()?.catch(() => {});
    const looks = [this.directory.progress(), wait(clock, LOOK_MS, over.signal)];
    await Promise.race(counted === undefined ? looks : [...looks, counted]);
    over.abort();
  }

  /**
   * Removes a share of the bytes and of the objects: the disk is full, of one or the other.
   *
   * @param options.used Bytes that are used, if that is known.
   */
  async giveWay({ share, leastBytes, used, removed }: {
    readonly share: number;
    readonly leastBytes: number;
    readonly used: number | undefined;
    readonly removed: Removal["removed"];
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
        // Only then it is known how much a share is.
        return this.directory.isWalking ? OBJECT_BYTES : undefined;
      },
      isUrgent: () => freed.bytes < leastBytes || freed.objects < 2,
      removed: async (gone, account) => {
        freed.bytes += gone.bytes;
        freed.objects += gone.objects;
        await removed(gone, account);
      },
      walk: () => this.directory.walk(),
    });
  }
}
