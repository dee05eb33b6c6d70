import type { ObjectFile } from "./directory_walk.ts";

/** Min files to remember, however few objects there are. */
const MIN_KEPT = 4096;
/** Max files to remember. */
const MAX_KEPT = 65_536;
/** Share of all files to remember; a new walk starts when they are used up. */
const KEPT_SHARE = 1 / 8;
/** Max files taken at a time. */
const MAX_TAKEN = 8;

/** A remembered file. */
export type OldFile = Omit<ObjectFile, "object">;

/**
 * The least recently used files that a walk has found; only a share of all, so that memory stays
 * bounded. Files written or used since the walk are younger than all of these.
 *
 * During a walk, the files found so far are a sample of all, because directories are ordered by
 * hash.
 */
export class OldestFiles {
  #files: OldFile[] = [];
  /** Files not sorted in yet. */
  #unsorted: OldFile[] = [];
  #kept: OldFile[] = [];
  #offered = 0;
  #isWalking = false;
  #takenInWalk = 0;

  /** Number of remembered files. */
  get size(): number {
    return this.#files.length + this.#unsorted.length;
  }

  /** Clears the list for a new walk. */
  startWalk(): void {
    this.#files = [];
    this.#unsorted = [];
    this.#kept = [];
    this.#offered = 0;
    this.#isWalking = true;
    this.#takenInWalk = 0;
  }

  /** Adds a file. */
  offer({ path, size, diskBytes, usedAt }: ObjectFile): void {
    // Without the key, a file takes a third of the memory.
    this.#unsorted.push({ path, size, diskBytes, usedAt });
    this.#offered++;
    if (this.#unsorted.length >= this.#limit) this.#sort();
  }

  /** Sorts the files after a walk. */
  endWalk(): void {
    this.#sort();
    this.#isWalking = false;
  }

  /**
   * Takes the oldest files with `bytes` on disk in total, but only a few at a time. During a walk,
   * takes only files that are likely to be among the oldest of all.
   */
  take(bytes: number): OldFile[] {
    let max = MAX_TAKEN;
    if (this.#isWalking) {
      const share = Math.floor(KEPT_SHARE * this.#offered) - this.#takenInWalk;
      max = Math.min(max, share);
      // It is enough that most files are sorted.
      if (this.#unsorted.length >= KEPT_SHARE * this.#offered) this.#sort();
    }
    const taken: OldFile[] = [];
    for (let left = bytes; left > 0 && taken.length < max;) {
      const file = this.#files.pop();
      if (file === undefined) break;
      taken.push(file);
      left -= file.diskBytes;
    }
    if (this.#isWalking) this.#takenInWalk += taken.length;
    return taken;
  }

  /** Keeps a file that was taken but cannot be removed now. */
  keep(file: OldFile): void {
    this.#kept.push(file);
  }

  /** Returns the kept files to the list. */
  putBack(): void {
    this.#files.push(...this.#kept.toReversed());
    this.#kept = [];
  }

  #sort(): void {
    const files = [...this.#files, ...this.#unsorted];
    this.#unsorted = [];
    // Oldest last: files are taken from the end.
    files.sort((a, b) => b.usedAt - a.usedAt);
    this.#files = files.slice(Math.max(0, files.length - this.#limit));
  }

  get #limit(): number {
    return Math.min(MAX_KEPT, Math.max(MIN_KEPT, Math.floor(KEPT_SHARE * this.#offered)));
  }
}
