import { type Clock, type RandomSource, wait } from "../../src/adapter/contract.ts";
import { isLockUnsupported } from "../_shared/errno.ts";
import type { FileSystem } from "./file_system.ts";
import { decodeLedger, encodeLedger, type LedgerState } from "./ledger_state.ts";
import { lockOwn } from "./lock_own.ts";

/** Max wait for a ledger that other processes hold, in milliseconds. */
const LOCK_PATIENCE_MS = 2_000;
const MAX_PAUSE_MS = 8;
/** Max bytes of a ledger, enough for thousands of writers; a larger file is replaced. */
const MAX_BYTES = 2 ** 20;
/** Max bytes of a ledger that is read without a lock. */
const PEEK_BYTES = 2 ** 16;

/** Options of a {@linkcode UsageLedger}. */
export interface UsageLedgerOptions {
  readonly files: FileSystem;
  readonly path: string;
  /** File mode. */
  readonly mode: number;
  readonly clock: Clock;
  readonly random: RandomSource;
}

/**
 * Other processes hold the ledger for longer than an update takes; one of them may be suspended.
 */
export class LedgerHeldError extends Error {
  /**
   * @param path Path of the ledger.
   */
  constructor(path: string) {
    super(
      `${path} is locked by another process all the time: a suspended process may hold the lock`,
    );
    this.name = "LedgerHeldError";
  }
}

/**
 * The space ledger that processes share: a small file, updated under a lock. A writer leases space
 * in advance and reports removals afterwards, so that after a crash at any time the ledger is too
 * high rather than too low.
 */
export class UsageLedger {
  readonly #options: UsageLedgerOptions;
  #last: Promise<unknown> = Promise.resolve();
  /** Replaces the file where files cannot be locked: then each process has its own ledger. */
  #ownState: { state: LedgerState | undefined } | undefined;
  #isHeld = false;

  constructor(options: UsageLedgerOptions) {
    this.#options = options;
  }

  get path(): string {
    return this.#options.path;
  }

  /** Whether all processes use the same ledger. */
  get isShared(): boolean {
    return this.#ownState === undefined;
  }

  /** Whether other processes held the file for too long and have not released it yet. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** A new id for a new ledger. */
  newId(): string {
    return this.#options.random.bytes(8).toHex();
  }

  /**
   * Updates the ledger, unless `change` returns its argument. `undefined` stands for a missing or
   * invalid ledger.
   *
   * @returns The ledger after the update.
   * @throws {LedgerHeldError} If other processes hold the file for too long.
   * @throws If it cannot be read or written.
   */
  update(
    change: (state: LedgerState | undefined) => LedgerState | undefined,
  ): Promise<LedgerState | undefined> {
    // Updates of this process queue here; only those of other processes wait for the lock.
    const updated = this.#last.then(() => this.#update(change));
    this.#last = updated.catch(() => {});
    return updated;
  }

  /** Reads the ledger without locking it; `undefined` if that fails. */
  async peek(): Promise<LedgerState | undefined> {
    if (this.#ownState !== undefined) return this.#ownState.state;
    const bytes = new Uint8Array(PEEK_BYTES);
    let length = 0;
    try {
      using file = await this.#options.files.open(this.#options.path, PEEK_BYTES);
      while (length < PEEK_BYTES) {
        const count = await file.read(bytes.subarray(length), length);
        if (count === 0) return decodeLedger(bytes.subarray(0, length));
        length += count;
      }
    } catch {
      // The next update reports the error.
    }
    return undefined;
  }

  async #update(
    change: (state: LedgerState | undefined) => LedgerState | undefined,
  ): Promise<LedgerState | undefined> {
    if (this.#ownState !== undefined) return this.#ownState.state = change(this.#ownState.state);
    const { files, path, mode, clock, random } = this.#options;
    // If the ledger was held for too long before, do not wait again until it is released.
    const giveUpAt = clock.now() + (this.#isHeld ? 0 : LOCK_PATIENCE_MS);
    for (;;) {
      using file = await lockOwn(files, path, mode).catch((error: unknown) => {
        if (!isLockUnsupported(error)) throw error;
        this.#ownState = { state: undefined };
        return undefined;
      });
      if (this.#ownState !== undefined) return await this.#update(change);
      if (file !== undefined) {
        this.#isHeld = false;
        const stored = decodeLedger(await file.read(MAX_BYTES));
        const after = change(stored?.id === "" ? { ...stored, id: this.newId() } : stored);
        if (after !== undefined && after !== stored) await file.write(encodeLedger(after));
        return after;
      }
      if (clock.now() >= giveUpAt) {
        this.#isHeld = true;
        throw new LedgerHeldError(path);
      }
      const [byte = 0] = random.bytes(1);
      await wait(clock, 1 + MAX_PAUSE_MS * byte / 256);
    }
  }
}
