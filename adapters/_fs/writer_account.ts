import type { Clock } from "../../src/adapter/contract.ts";
import { isContinued, type LedgerState } from "./ledger_state.ts";
import { LedgerHeldError, type UsageLedger } from "./usage_ledger.ts";

/**
 * Share of the capacity that a writer leases in advance, so that most stores need no ledger access.
 */
const LEASE_SHARE = 1 / 512;
const MAX_LEASE = 2 ** 26;

/** Removed bytes that are still to be subtracted from the ledger with this id. */
interface PendingCredit {
  readonly bytes: number;
  readonly ledgerId: string | undefined;
}

/**
 * The state of one writer in the ledger: its lease, and the bytes written since the last update.
 *
 * The ledger may be lost and created anew, replaced by an older copy, or other writers may take
 * this one for dead. Then its lease in the ledger differs from the last recorded one, and the next
 * update corrects it.
 */
export class WriterAccount {
  /** Bytes of possibly replaced files that are not in the ledger yet. */
  replaced = 0;
  readonly #ledger: UsageLedger;
  readonly #clock: Clock;
  /** Identifies this writer. */
  readonly #tag: string;
  #state: LedgerState | undefined;
  #lease = 0;
  /** Taken from the lease, but not published yet. */
  #reserved = 0;
  #recorded = 0;
  #maxRecorded = 0;
  #pendingCredit: PendingCredit | undefined;
  /** Space usable while other processes hold the ledger; computed when needed. */
  #offlineBytes: number | undefined;
  #needsCount = false;
  /** Total bytes that all writers have stored, and when it was read. */
  #stored = { bytes: 0, at: -Infinity };

  constructor(options: {
    readonly ledger: UsageLedger;
    readonly tag: string;
    readonly clock: Clock;
  }) {
    this.#ledger = options.ledger;
    this.#tag = options.tag;
    this.#clock = options.clock;
  }

  /** The ledger at the last update. */
  get state(): LedgerState | undefined {
    return this.#state;
  }

  /** Bytes used by all writers, less removals not yet in the ledger. */
  get used(): number {
    return Math.max(0, (this.#state?.used ?? 0) - (this.#pendingCredit?.bytes ?? 0));
  }

  /** Space that can be reserved without a ledger update. */
  get lease(): number {
    return this.#lease;
  }

  /** Leased space that is not on disk yet. */
  get held(): number {
    return this.#lease + this.#reserved;
  }

  /** This writer's lease in the ledger: the remaining lease and what was written since. */
  get recorded(): number {
    return this.#recorded;
  }

  /** The largest lease of this writer so far. */
  get maxRecorded(): number {
    return this.#maxRecorded;
  }

  /** Bytes written since the last update. */
  get written(): number {
    return this.#recorded - this.held;
  }

  /** Whether the ledger may be wrong, so that the directory must be counted. */
  get needsCount(): boolean {
    return this.#needsCount;
  }

  /** Total bytes that all writers have stored; only differences are meaningful. */
  get storedBytes(): number {
    return this.#stored.bytes;
  }

  /** Age of {@linkcode storedBytes}, in milliseconds. */
  get storedAgeMs(): number {
    return this.#clock.now() - this.#stored.at;
  }

  /** Reserves space for a file; returns whether the lease is large enough. */
  tryReserve(bytes: number): boolean {
    if (this.#lease < bytes) return false;
    this.#lease -= bytes;
    this.#reserved += bytes;
    return true;
  }

  /** Releases the space of a file that was not written. */
  release(bytes: number): void {
    this.#lease += bytes;
  }

  /** Ends a reservation: its bytes are on disk now, or were released. */
  settled(bytes: number): void {
    this.#reserved -= bytes;
  }

  /** Adds space granted by an update of the ledger. */
  grant(bytes: number): void {
    this.#lease += bytes;
  }

  /** Adds space that is not in the ledger yet. */
  extend(bytes: number): void {
    this.#lease += bytes;
    this.#recorded += bytes;
  }

  /**
   * Adds space while the ledger cannot be updated. Each writer may use an equal share of half of
   * the free space, which no other writer can be granted then. Writers not in the ledger get none,
   * because their number is unknown.
   */
  async tryExtend(bytes: number, capacityBytes: number): Promise<boolean> {
    if (this.#offlineBytes === undefined) {
      const state = await this.#ledger.peek();
      if (state?.leases[this.#tag] === undefined) return false;
      const writers = Object.keys(state.leases).length + 1;
      const left = Math.max(0, capacityBytes - state.used);
      this.#offlineBytes = Math.floor(left / 2 / writers);
    }
    if (bytes > this.#offlineBytes) return false;
    this.#offlineBytes -= bytes;
    this.extend(bytes);
    return true;
  }

  /** Reads the total bytes stored, without locking the ledger. */
  async refreshStored(): Promise<void> {
    this.#stored = { ...this.#stored, at: this.#clock.now() };
    const state = await this.#ledger.peek();
    if (state !== undefined) this.#stored = { ...this.#stored, bytes: state.granted };
  }

  /**
   * Updates the ledger, including all pending changes of this writer.
   *
   * @param create Creates a ledger if there is none.
   * @returns The ledger after the update; `undefined` if there is none.
   * @throws {LedgerHeldError} If other processes hold it for too long.
   */
  async update(
    change: (state: LedgerState) => LedgerState = (state) => state,
    create: () => LedgerState | undefined = () => undefined,
  ): Promise<LedgerState | undefined> {
    const pendingCredit = this.#pendingCredit;
    let recorded = 0;
    const state = await this.#ledger.update((stored) => {
      const before = stored ?? create();
      if (before === undefined) return undefined;
      // Bytes written since may be counted twice or not at all.
      this.#needsCount ||= this.#state !== undefined && !isContinued(this.#state, before);
      const after = change(this.#withRecorded(this.#newest(before), pendingCredit));
      recorded = after.leases[this.#tag] ?? 0;
      return after;
    });
    this.#state = state;
    if (state === undefined) return undefined;
    this.#recorded = recorded;
    this.#maxRecorded = Math.max(this.#maxRecorded, recorded);
    this.#offlineBytes = undefined;
    this.#stored = { bytes: state.granted, at: this.#clock.now() };
    const left = (this.#pendingCredit?.bytes ?? 0) - (pendingCredit?.bytes ?? 0);
    this.#pendingCredit = this.#pendingCredit === undefined || left <= 0
      ? undefined
      : { ...this.#pendingCredit, bytes: left };
    return state;
  }

  /** The ledger with the current lease of this writer, without what is on disk by now. */
  renewed(state: LedgerState, more = 0): LedgerState {
    const lease = this.held + more;
    if ((state.leases[this.#tag] ?? 0) === lease) return state;
    return { ...state, leases: { ...state.leases, [this.#tag]: lease } };
  }

  /**
   * A new ledger for a directory that was counted.
   *
   * @param written Bytes that this writer had written when the count began; the count includes
   * them.
   */
  created(counted: {
    readonly onDisk: number;
    readonly written: number;
    readonly others: Readonly<Record<string, number>>;
  }): LedgerState {
    this.#recorded -= counted.written;
    // The count still includes files removed meanwhile.
    const freed = this.#pendingCredit?.ledgerId === undefined ? this.#pendingCredit?.bytes ?? 0 : 0;
    const leases = { ...counted.others, [this.#tag]: this.#recorded };
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

  /** Records that a count has corrected the ledger. */
  corrected(): void {
    this.#needsCount = false;
  }

  /**
   * Records that files with this many bytes on disk were removed.
   *
   * @param ledgerId Id of the ledger before the removal; a ledger created since does not contain
   * them.
   */
  async credit(bytes: number, ledgerId: string | undefined): Promise<void> {
    try {
      await this.update((state) =>
        ledgerId !== undefined && ledgerId !== state.id ? state : {
          ...state,
          used: Math.max(0, state.used - bytes),
          credited: state.credited + bytes,
        }
      );
    } catch (error) {
      if (error instanceof LedgerHeldError) return this.deferCredit(bytes, ledgerId);
      this.#needsCount = true;
      throw error;
    }
  }

  /** Records removed bytes for the next update. */
  deferCredit(bytes: number, ledgerId: string | undefined): void {
    if (bytes === 0) return;
    if (this.#pendingCredit !== undefined && this.#pendingCredit.ledgerId !== ledgerId) {
      this.#needsCount = true;
      this.#pendingCredit = undefined;
    }
    this.#pendingCredit = { bytes: (this.#pendingCredit?.bytes ?? 0) + bytes, ledgerId };
  }

  /** Returns the unused lease; requests a new count if the ledger may be wrong. */
  async close(): Promise<void> {
    await this.update((state) => {
      const { [this.#tag]: _, ...leases } = state.leases;
      const used = Math.max(0, state.used - this.#lease);
      const countedAt = this.#needsCount ? 0 : state.countedAt;
      return { ...state, leases, used, replaced: state.replaced + this.replaced, countedAt };
    });
    this.#lease = 0;
    this.replaced = 0;
  }

  /**
   * Corrects a ledger that was replaced by an older copy, and gives it a new id, so that other
   * writers notice: their recorded changes may be lost.
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

  #withRecorded(state: LedgerState, pendingCredit: PendingCredit | undefined): LedgerState {
    const missing = this.#recorded - (state.leases[this.#tag] ?? 0);
    const freed = pendingCredit !== undefined && pendingCredit.ledgerId === state.id
      ? pendingCredit.bytes
      : 0;
    if (missing === 0 && freed === 0) return state;
    return {
      ...state,
      used: Math.max(0, state.used + missing - freed),
      granted: state.granted + Math.max(0, missing),
      credited: state.credited + freed,
      leases: { ...state.leases, [this.#tag]: this.#recorded },
    };
  }
}

/** Bytes that a writer leases at a time from a directory of this capacity. */
export function leaseBytesOf(capacityBytes: number): number {
  return Math.min(MAX_LEASE, Math.floor(capacityBytes * LEASE_SHARE));
}
