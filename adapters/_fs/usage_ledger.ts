import { type Clock, type RandomSource, wait } from "../../src/l2/adapter.ts";
import { crc32 } from "../../src/runtime/checksum.ts";
import { isLockUnsupported } from "../_shared/errno.ts";
import type { FileSystem } from "./file_system.ts";

/** Time after which a ledger that others hold is given up for now, in milliseconds. */
const LOCK_PATIENCE_MS = 5_000;
const LONGEST_PAUSE_MS = 8;
/** Bytes of a ledger with many thousands of writers; what is larger is not ours, and replaced. */
const MOST_BYTES = 2 ** 20;

/** What all writers of a directory use together, in bytes on disk. */
export interface LedgerState {
  /** On disk, or promised to a writer. Never less than what is on disk. */
  readonly used: number;
  /** Ever promised to writers. */
  readonly granted: number;
  /** Ever reported as removed. */
  readonly credited: number;
  /** Of what is used, what may be gone because other files took its place: only a count tells. */
  readonly replaced: number;
  /** What is promised and, for all that others know, not written yet, by writer. */
  readonly leases: Readonly<Record<string, number>>;
  /** When the directory was last counted, in milliseconds since 1970. */
  readonly countedAt: number;
}

/** How a {@linkcode UsageLedger} is set up. */
export interface UsageLedgerOptions {
  /** What does it. */
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

  /** The ledger in a file, which may not exist yet. */
  constructor(options: UsageLedgerOptions) {
    this.#options = options;
  }

  /** Whether all processes use the same account. */
  get isShared(): boolean {
    return this.#ownState === undefined;
  }

  /**
   * Changes the account, or leaves it alone if `change` returns what it was given; `undefined`
   * stands for an account that does not exist or cannot be trusted.
   *
   * @returns The account afterwards.
   * @throws If the file cannot be read or written, or is held by others for too long.
   */
  update(
    change: (state: LedgerState | undefined) => LedgerState | undefined,
  ): Promise<LedgerState | undefined> {
    // Waiting for a lock is for other processes.
    const updated = this.#last.then(() => this.#update(change));
    this.#last = updated.catch(() => {});
    return updated;
  }

  async #update(
    change: (state: LedgerState | undefined) => LedgerState | undefined,
  ): Promise<LedgerState | undefined> {
    if (this.#ownState !== undefined) return this.#ownState.state = change(this.#ownState.state);
    const { files, path, mode, clock, random } = this.#options;
    const giveUpAt = clock.now() + LOCK_PATIENCE_MS;
    for (;;) {
      using file = await files.lock(path, { create: true, mode }).catch((error: unknown) => {
        if (!isLockUnsupported(error)) throw error;
        this.#ownState = { state: undefined };
        return undefined;
      });
      if (this.#ownState !== undefined) return await this.#update(change);
      if (file !== undefined) {
        const before = decode(await file.read(MOST_BYTES));
        const after = change(before);
        if (after !== undefined && after !== before) await file.write(encode(after));
        return after;
      }
      if (clock.now() >= giveUpAt) throw new Error(`${path} is held by others all the time`);
      const [byte = 0] = random.bytes(1);
      await wait(clock, 1 + LONGEST_PAUSE_MS * byte / 256);
    }
  }
}

/** Bytes promised to all writers together. */
export function leasedBytes({ leases }: LedgerState): number {
  return Object.values(leases).reduce((sum, bytes) => sum + bytes, 0);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function encode(state: LedgerState): Uint8Array<ArrayBuffer> {
  const text = JSON.stringify(state);
  return encoder.encode(`${text}\n${crc32(encoder.encode(text)).toString(16)}\n`);
}

function decode(bytes: Uint8Array): LedgerState | undefined {
  const [text = "", checksum] = decoder.decode(bytes).split("\n");
  if (checksum !== crc32(encoder.encode(text)).toString(16)) return undefined;
  try {
    const state: unknown = JSON.parse(text);
    return isLedgerState(state) ? state : undefined;
  } catch {
    return undefined;
  }
}

function isLedgerState(value: unknown): value is LedgerState {
  if (!isRecord(value)) return false;
  const { used, granted, credited, replaced, countedAt, leases } = value;
  const numbers = [used, granted, credited, replaced, countedAt];
  return isRecord(leases) && [...numbers, ...Object.values(leases)].every(Number.isFinite);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
