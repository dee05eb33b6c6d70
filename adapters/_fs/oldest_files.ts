import type { ObjectFile } from "./directory_walk.ts";

/** Files that are remembered at least, however few objects there are. */
const LEAST_KEPT = 4096;
/** Files that are remembered at most. */
const MOST_KEPT = 65_536;
/** Part of all files that is remembered: the next walk comes when these are used up. */
const KEPT_SHARE = 1 / 8;
/** Files that are taken at a time. */
const MOST_TAKEN = 8;

/** What is remembered of a file. */
export type OldFile = Omit<ObjectFile, "object">;

/**
 * The files that were used longest ago, of all that a walk through a directory offered: not all, so
 * that memory stays bounded. What was written or used since the walk is younger than any of them.
 *
 * While a walk goes on, the oldest of the files that were offered so far stand for all: objects lie
 * in a directory by their hashes.
 */
export class OldestFiles {
  #files: OldFile[] = [];
  /** Offered, and not in order among the others yet. */
  #unsorted: OldFile[] = [];
  #kept: OldFile[] = [];
  #offered = 0;
  #isWalking = false;
  #takenInWalk = 0;

  /** Files that are remembered. */
  get size(): number {
    return this.#files.length + this.#unsorted.length;
  }

  /** Forgets all: a walk begins. */
  startWalk(): void {
    this.#files = [];
    this.#unsorted = [];
    this.#kept = [];
    this.#offered = 0;
    this.#isWalking = true;
    this.#takenInWalk = 0;
  }

  /** Takes note of a file. */
  offer({ path, size, diskBytes, usedAt }: ObjectFile): void {
    // Without its key, a file takes a third of the memory.
    this.#unsorted.push({ path, size, diskBytes, usedAt });
    this.#offered++;
    if (this.#unsorted.length >= this.#limit) this.#sort();
  }

  /** Puts the files in order: the walk is over. */
  endWalk(): void {
    this.#sort();
    this.#isWalking = false;
  }

  /**
   * Takes the oldest files that have `bytes` on disk together, or a few of them: while a walk goes
   * on, only what is likely to be old among all.
   */
  take(bytes: number): OldFile[] {
    let most = MOST_TAKEN;
    if (this.#isWalking) {
      const share = Math.floor(KEPT_SHARE * this.#offered) - this.#takenInWalk;
      most = Math.min(most, share);
      // In order among most of them is enough.
      if (this.#unsorted.length >= KEPT_SHARE * this.#offered) this.#sort();
    }
    const taken: OldFile[] = [];
    for (let left = bytes; left > 0 && taken.length < most;) {
      const file = this.#files.pop();
      if (file === undefined) break;
      taken.push(file);
      left -= file.diskBytes;
    }
    if (this.#isWalking) this.#takenInWalk += taken.length;
    return taken;
  }

  /** Remembers a file that was taken and stays for now. */
  keep(file: OldFile): void {
    this.#kept.push(file);
  }

  /** Has the files that stayed tried again with the next ones. */
  putBack(): void {
    this.#files.push(...this.#kept.toReversed());
    this.#kept = [];
  }

  #sort(): void {
    const files = [...this.#files, ...this.#unsorted];
    this.#unsorted = [];
    // The oldest last, where they are taken from.
    files.sort((a, b) => b.usedAt - a.usedAt);
    this.#files = files.slice(Math.max(0, files.length - this.#limit));
  }

  get #limit(): number {
    return Math.min(MOST_KEPT, Math.max(LEAST_KEPT, Math.floor(KEPT_SHARE * this.#offered)));
  }
}
