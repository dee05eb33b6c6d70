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
 */
export class OldestFiles {
  #files: OldFile[] = [];
  #kept: OldFile[] = [];
  #offered = 0;

  /** Files that are remembered. */
  get size(): number {
    return this.#files.length;
  }

  /** Forgets all, before a walk. */
  clear(): void {
    this.#files = [];
    this.#kept = [];
    this.#offered = 0;
  }

  /** Takes note of a file. */
  offer({ path, size, diskBytes, usedAt }: ObjectFile): void {
    // Without its key, a file takes a third of the memory.
    this.#files.push({ path, size, diskBytes, usedAt });
    this.#offered++;
    if (this.#files.length >= 2 * this.#limit) this.sort();
  }

  /** Puts the files in order, after a walk. */
  sort(): void {
    // The oldest last, where they are taken from.
    this.#files.sort((a, b) => b.usedAt - a.usedAt);
    this.#files.splice(0, this.#files.length - this.#limit);
  }

  /** Takes the oldest files that have `bytes` on disk together, or a few of them. */
  take(bytes: number): OldFile[] {
    const taken: OldFile[] = [];
    for (let left = bytes; left > 0 && taken.length < MOST_TAKEN;) {
      const file = this.#files.pop();
      if (file === undefined) break;
      taken.push(file);
      left -= file.diskBytes;
    }
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

  get #limit(): number {
    return Math.min(MOST_KEPT, Math.max(LEAST_KEPT, Math.floor(KEPT_SHARE * this.#offered)));
  }
}
