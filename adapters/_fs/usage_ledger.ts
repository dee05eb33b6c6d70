import { type Clock, type RandomSource, wait } from "../../src/l2/adapter.ts";
import { isLockUnsupported } from "../_shared/errno.ts";
import type { FileSystem } from "./file_system.ts";
import { decodeLedger, encodeLedger, type LedgerState } from "./ledger_state.ts";
import { lockOwn } from "./lock_own.ts";

/** Time after which a ledger that others hold is given up for now, in milliseconds. */
const LOCK_PATIENCE_MS = 2_000;
const LONGEST_PAUSE_MS = 8;
/** Bytes of a ledger with many thousands of writers; what is larger is not ours, and replaced. */
const MOST_BYTES = 2 ** 20;
/** Ledgers that are read without a lock have fewer bytes. */
const PEEK_BYTES = 2 ** 16;

/** How a {@linkcode UsageLedger} is set up. */
export interface UsageLedgerOptions {
  /** The file operations. */
  readonly files: FileSystem;
  /** The file. */
  readonly path: string;
  /** Its permissions. */
  readonly mode: number;
  /** Source of time. */
  readonly clock: Clock;
  /** Source of randomness. */
  readonly random: RandomSource;
}

/** Others hold the ledger for longer than its changes take: one of them may have been stopped. */
export class LedgerHeldError extends Error {
  /** For the ledger at a path. */
  constructor(path: string) {
    super(`${path} is held by others all the time: a process that was stopped may have its lock`);
    this.name = "LedgerHeldError";
  }
}

/**
 * The account of a directory that processes share: a small file that is changed under a lock. A
 * writer takes some room in advance and reports what it has removed afterwards, so that whatever
 * happens between, the account says too much rather than too little.
 */
export class UsageLedger {
  readonly #options: UsageLedgerOptions;
  #last: Promise<unknown> = Promise.resolve();
  /** Stands in for the file where files cannot be locked: then each process has its own account. */
  #ownState: { state: LedgerState | undefined } | undefined;
  #isHeld = false;

  /** The ledger in a file, which may not exist yet. */
  constructor(options: UsageLedgerOptions) {
    this.#options = options;
  }

  /** The file. */
  get path(): string {
    return this.#options.path;
  }

  /** Whether all processes use the same account. */
  get isShared(): boolean {
    return this.#ownState === undefined;
  }

  /** Whether others were found to hold the file too long, and have not let go of it yet. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** A name for an account that is made anew. */
  newId(): string {
    return this.#options.random.bytes(8).toHex();
  }

  /**
   * Changes the account, or leaves it alone if `change` returns what it was given; `undefined`
   * stands for an account that does not exist or cannot be trusted.
   *
   * @returns The account afterwards.
   * @throws {LedgerHeldError} If others hold the file for too long.
   * @throws If it cannot be read or written.
   */
  update(
    change: (state: LedgerState | undefined) => LedgerState | undefined,
  ): Promise<LedgerState | undefined> {
    // Waiting for a lock is for other processes.
    const updated = this.#last.then(() => this.#update(change));
    this.#last = updated.catch(() => {});
    return updated;
  }

  /** The account as it is, without waiting for a lock; `undefined` where it cannot be read so. */
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
      // Those who change it find out why.
    }
    return undefined;
  }

  async #update(
    change: (state: LedgerState | undefined) => LedgerState | undefined,
  ): Promise<LedgerState | undefined> {
    if (this.#ownState !== undefined) return this.#ownState.state = change(this.#ownState.state);
    const { files, path, mode, clock, random } = this.#options;
    // Others that were found to hold it too long are not waited for again until they let go.
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
        const stored = decodeLedger(await file.read(MOST_BYTES));
        const after = change(stored?.id === "" ? { ...stored, id: this.newId() } : stored);
        if (after !== undefined && after !== stored) await file.write(encodeLedger(after));
        return after;
      }
      if (clock.now() >= giveUpAt) {
        this.#isHeld = true;
        throw new LedgerHeldError(path);
      }
      const [byte = 0] = random.bytes(1);
      await wait(clock, 1 + LONGEST_PAUSE_MS * byte / 256);
    }
  }
}
