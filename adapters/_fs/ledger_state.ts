import { crc32 } from "../../src/runtime/checksum.ts";
import { knownCount } from "../_shared/file_info.ts";

/** Writers whose leases a ledger lists at most. */
const MOST_WRITERS = 4096;

/** The account of a directory that its writers share, in bytes on disk. */
export interface LedgerState {
  /** Names this account: what was counted in another one is void. */
  readonly id: string;
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

/** What a count of a directory found. */
export interface DirectoryCounted {
  /** The account when the count began. */
  readonly before: LedgerState | undefined;
  /** Bytes that objects and abandoned files take on disk. */
  readonly onDisk: number;
  /** Writers that are gone. */
  readonly dead: ReadonlySet<string>;
  /** Whether the account may be too low. */
  readonly isDoubtful: boolean;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** An account as bytes: a line of JSON, and a line with its checksum. */
export function encodeLedger(state: LedgerState): Uint8Array<ArrayBuffer> {
  const text = JSON.stringify(state);
  return encoder.encode(`${text}\n${crc32(encoder.encode(text)).toString(16)}\n`);
}

/**
 * The account in bytes; `undefined` if it is torn, or no account. One of version 0.1 has no name:
 * its `id` is empty.
 */
export function decodeLedger(bytes: Uint8Array): LedgerState | undefined {
  const [text = "", checksum] = decoder.decode(bytes).split("\n");
  if (checksum !== crc32(encoder.encode(text)).toString(16)) return undefined;
  try {
    const stored: unknown = JSON.parse(text);
    const state = isRecord(stored) ? { id: "", ...stored } : stored;
    return isLedgerState(state) ? state : undefined;
  } catch {
    return undefined;
  }
}

/** Bytes promised to all writers together. */
export function leasedBytes({ leases }: LedgerState): number {
  return Object.values(leases).reduce((sum, bytes) => sum + bytes, 0);
}

/**
 * Whether `now` is what became of the account `before`. It is not where the file was lost and made
 * anew, or where an older copy took its place.
 */
export function isContinued(before: LedgerState, now: LedgerState): boolean {
  return before.id === now.id && before.granted <= now.granted && before.credited <= now.credited;
}

/**
 * The account after a count. What was written or removed meanwhile may or may not have been seen:
 * the account is only moved as far as that is certain, or as far as can be if it was in doubt.
 */
export function reconcile(now: LedgerState, counted: DirectoryCounted): LedgerState {
  const { before, onDisk, dead, isDoubtful } = counted;
  // Another process has made an account of its own meanwhile.
  if (before === undefined || !isContinued(before, now)) return now;
  const livingOf = (state: LedgerState): Record<string, number> =>
    Object.fromEntries(Object.entries(state.leases).filter(([tag]) => !dead.has(tag)));
  const leases = livingOf(now);
  const granted = now.granted - before.granted;
  const credited = now.credited - before.credited;
  const most = onDisk + leasedBytes({ ...before, leases: livingOf(before) }) + granted;
  const least = onDisk - credited;
  const used = isDoubtful || now.used < least ? most : Math.min(now.used, most);
  const replaced = Math.max(0, now.replaced - before.replaced);
  return { ...now, leases, used, replaced, countedAt: Date.now() };
}

function isLedgerState(value: unknown): value is LedgerState {
  if (!isRecord(value)) return false;
  const { id, used, granted, credited, replaced, countedAt, leases } = value;
  if (typeof id !== "string" || !isRecord(leases)) return false;
  const promised = Object.values(leases);
  return promised.length <= MOST_WRITERS &&
    [used, granted, credited, replaced, ...promised].every((bytes) =>
      knownCount(bytes) !== undefined
    ) && Number.isFinite(countedAt);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
