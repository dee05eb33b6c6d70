import type { Clock } from "../../src/l2/adapter.ts";
import { isContinued, type LedgerState } from "./ledger_state.ts";
import { LedgerHeldError, type UsageLedger } from "./usage_ledger.ts";

/** Objects that were removed, and are still to be taken from the account of that name. */
interface Owed {
  readonly bytes: number;
  readonly account: string | undefined;
}

/**
 * What one writer has in the account of a directory: room that it took in advance, and what it
 * wrote since the account was changed last.
 *
 * The account may be lost and made anew, an older copy may take its place, or others may take this
 * writer for dead: then the lease that stands there is not what was entered last, and is corrected
 * by all that may be missing.
 */
export class WriterAccount {
  readonly #ledger: UsageLedger;
  readonly #clock: Clock;
  /** Names this writer. */
  readonly #tag: string;
  #state: LedgerState | undefined;
  #lease = 0;
  /** Taken from the lease, and not on disk under its name yet. */
  #inFlight = 0;
  #entered = 0;
  #mostEntered = 0;
  #owed: Owed | undefined;
  /** Room that may still be used while others hold the account; not known before. */
  #reserve: number | undefined;
  #isDoubtful = false;
  /** Bytes ever stored by all writers, and when that was known. */
  #stored = { bytes: 0, at: -Infinity };

  /** The account in `ledger` of the writer with a tag. */
  constructor(options: {
    readonly ledger: UsageLedger;
    readonly tag: string;
    readonly clock: Clock;
  }) {
    this.#ledger = options.ledger;
    this.#tag = options.tag;
    this.#clock = options.clock;
  }

  /** The account when it was seen last. */
  get state(): LedgerState | undefined {
    return this.#state;
  }

  /** Bytes used by all, as far as is known: less what is removed and not in the account yet. */
  get used(): number {
    return Math.max(0, (this.#state?.used ?? 0) - (this.#owed?.bytes ?? 0));
  }

  /** Room that can be taken without asking. */
  get lease(): number {
    return this.#lease;
  }

  /** Room that is taken, and not used yet. */
  get held(): number {
    return this.#lease + this.#inFlight;
  }

  /** What the account has of this writer: what is left of it, and what was written since. */
  get entered(): number {
    return this.#entered;
  }

  /** The most that the account ever had of this writer. */
  get mostEntered(): number {
    return this.#mostEntered;
  }

  /** What was written since the account was changed last. */
  get written(): number {
    return this.#entered - this.held;
  }

  /** Whether the account may be wrong, which only a count corrects. */
  get isDoubtful(): boolean {
    return this.#isDoubtful;
  }

  /** Bytes ever stored by all writers; only differences mean anything. */
  get storedBytes(): number {
    return this.#stored.bytes;
  }

  /** Time since {@linkcode storedBytes} was known, in milliseconds. */
  get storedAgeMs(): number {
    return this.#clock.now() - this.#stored.at;
  }

  /** Takes room for a file; whether there is enough. */
  tryTake(bytes: number): boolean {
    if (this.#lease < bytes) return false;
    this.#lease -= bytes;
    this.#inFlight += bytes;
    return true;
  }

  /** Gives back room for a file that was not written. */
  give(bytes: number): void {
    this.#lease += bytes;
  }

  /** Notes that what was taken for a file is on disk, or was given back. */
  settled(bytes: number): void {
    this.#inFlight -= bytes;
  }

  /** Adds room that was granted by the account. */
  grant(bytes: number): void {
    this.#lease += bytes;
  }

  /** Adds room that the account does not know of yet. */
  extend(bytes: number): void {
    this.#lease += bytes;
    this.#entered += bytes;
  }

  /**
   * Adds room that no other writer can be given while the account cannot be changed: each may use
   * an equal part of half of what was left. Those that are not in the account yet have no part:
   * nobody knows how many of them come.
   */
  async tryExtend(bytes: number, capacityBytes: number): Promise<boolean> {
    if (this.#reserve === undefined) {
      const state = await this.#ledger.peek();
      if (state?.leases[this.#tag] === undefined) return false;
      const writers = Object.keys(state.leases).length + 1;
      const left = Math.max(0, capacityBytes - state.used);
      this.#reserve = Math.floor(left / 2 / writers);
    }
    if (bytes > this.#reserve) return false;
    this.#reserve -= bytes;
    this.extend(bytes);
    return true;
  }

  /** Looks how much others have stored, without waiting for the account. */
  async look(): Promise<void> {
    this.#stored = { ...this.#stored, at: this.#clock.now() };
    const state = await this.#ledger.peek();
    if (state !== undefined) this.#stored = { ...this.#stored, bytes: state.granted };
  }

  /**
   * Changes the account, after all that this writer has was entered.
   *
   * @param create Makes the account if there is none.
   * @returns The account afterwards; `undefined` if there is none.
   * @throws {LedgerHeldError} If others hold it for too long.
   */
  async contact(
    change: (state: LedgerState) => LedgerState = (state) => state,
    create: () => LedgerState | undefined = () => undefined,
  ): Promise<LedgerState | undefined> {
    const owed = this.#owed;
    let entered = 0;
    const state = await this.#ledger.update((stored) => {
      const before = stored ?? create();
      if (before === undefined) return undefined;
      // What was written since may be counted twice, or not at all.
      this.#isDoubtful ||= this.#state !== undefined && !isContinued(this.#state, before);
      const after = change(this.#entering(this.#newest(before), owed));
      entered = after.leases[this.#tag] ?? 0;
      return after;
    });
    this.#state = state;
    if (state === undefined) return undefined;
    this.#entered = entered;
    this.#mostEntered = Math.max(this.#mostEntered, entered);
    this.#reserve = undefined;
    this.#stored = { bytes: state.granted, at: this.#clock.now() };
    const left = (this.#owed?.bytes ?? 0) - (owed?.bytes ?? 0);
    this.#owed = this.#owed === undefined || left <= 0 ? undefined : { ...this.#owed, bytes: left };
    return state;
  }

  /** The account with the lease of this writer as it is now: what was written is no promise. */
  renewed(state: LedgerState, more = 0): LedgerState {
    const lease = this.held + more;
    if ((state.leases[this.#tag] ?? 0) === lease) return state;
    return { ...state, leases: { ...state.leases, [this.#tag]: lease } };
  }

  /**
   * An account for a directory that has none, after a count of it.
   *
   * @param written What this writer had written when the count began: it was found.
   */
  created(counted: {
    readonly onDisk: number;
    readonly written: number;
    readonly others: Readonly<Record<string, number>>;
  }): LedgerState {
    this.#entered -= counted.written;
    // What was removed meanwhile was found before.
    const freed = this.#owed?.account === undefined ? this.#owed?.bytes ?? 0 : 0;
    const leases = { ...counted.others, [this.#tag]: this.#entered };
    const promised = Object.values(leases).reduce((sum, bytes) => sum + bytes, 0);
    return {
      id: this.#ledger.newId(),
      used: Math.max(0, counted.onDisk - freed) + promised,
      granted: 0,
      credited: 0,
      replaced: 0,
      leases,
      countedAt: Date.now(),
    };
  }

  /** Notes that a count has corrected the account. */
  corrected(): void {
    this.#isDoubtful = false;
  }

  /**
   * Notes that files which took so many bytes on disk are gone.
   *
   * @param account Its name before they were removed: one that was made since does not have them.
   */
  async credit(bytes: number, account: string | undefined): Promise<void> {
    try {
      await this.contact((state) =>
        account !== undefined && account !== state.id ? state : {
          ...state,
          used: Math.max(0, state.used - bytes),
          credited: state.credited + bytes,
        }
      );
    } catch (error) {
      if (error instanceof LedgerHeldError) return this.owe(bytes, account);
      this.#isDoubtful = true;
      throw error;
    }
  }

  /** Notes that files are gone, for the next time that the account can be changed. */
  owe(bytes: number, account: string | undefined): void {
    if (bytes === 0) return;
    if (this.#owed !== undefined && this.#owed.account !== account) {
      this.#isDoubtful = true;
      this.#owed = undefined;
    }
    this.#owed = { bytes: (this.#owed?.bytes ?? 0) + bytes, account };
  }

  /** Gives everything back that was taken in advance, and has others count if that is needed. */
  async close(replaced: number): Promise<void> {
    await this.contact((state) => {
      const { [this.#tag]: _, ...leases } = state.leases;
      const used = Math.max(0, state.used - this.#lease);
      const countedAt = this.#isDoubtful ? 0 : state.countedAt;
      return { ...state, leases, used, replaced: state.replaced + replaced, countedAt };
    });
    this.#lease = 0;
  }

  /**
   * Corrects an account in whose place an older copy was put. It is another one from now on, so that
   * others find that out too: what they entered may be lost.
   */
  #newest(state: LedgerState): LedgerState {
    const seen = this.#state;
    if (seen === undefined || seen.id !== state.id || isContinued(seen, state)) return state;
    return {
      ...state,
      id: this.#ledger.newId(),
      used: Math.max(state.used, seen.used),
      granted: Math.max(state.granted, seen.granted),
      credited: Math.max(state.credited, seen.credited),
    };
  }

  #entering(state: LedgerState, owed: Owed | undefined): LedgerState {
    const missing = this.#entered - (state.leases[this.#tag] ?? 0);
    const freed = owed !== undefined && owed.account === state.id ? owed.bytes : 0;
    if (missing === 0 && freed === 0) return state;
    return {
      ...state,
      used: Math.max(0, state.used + missing - freed),
      granted: state.granted + Math.max(0, missing),
      credited: state.credited + freed,
      leases: { ...state.leases, [this.#tag]: this.#entered },
    };
  }
}
