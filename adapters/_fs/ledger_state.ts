import { crc32 } from "../../src/base/checksum.ts";
import { knownCount } from "../_shared/file_info.ts";

/** Max writers that a ledger lists. */
const MAX_WRITERS = 4096;

/** The space ledger of a directory, shared by its writers. Numbers are bytes on disk. */
export interface LedgerState {
  /** Id of this ledger: figures of another one do not apply. */
  readonly id: string;
  /** On disk or leased to a writer; never less than what is on disk. */
  readonly used: number;
  /** Total leased to writers so far. */
  readonly granted: number;
  /** Total reported as removed so far. */
  readonly credited: number;
  /** Part of `used` that replaced files may have freed; only a count shows how much. */
  readonly replaced: number;
  /** Space leased by each writer and, as far as the others know, not yet written. */
  readonly leases: Readonly<Record<string, number>>;
  /** Time of the last count, in milliseconds since 1970. */
  readonly countedAt: number;
}

/** Result of a count of the directory. */
export interface DirectoryCounted {
  /** The ledger when the count began. */
  readonly before: LedgerState | undefined;
  /** Bytes on disk of objects and abandoned files. */
  readonly onDisk: number;
  /** Tags of writers that are dead. */
  readonly dead: ReadonlySet<string>;
  /** Whether the ledger may be too low. */
  readonly mayBeTooLow: boolean;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Encodes a ledger as a line of JSON and a line with its checksum. */
export function encodeLedger(state: LedgerState): Uint8Array<ArrayBuffer> {
  const text = JSON.stringify(state);
  return encoder.encode(`${text}\n${crc32(encoder.encode(text)).toString(16)}\n`);
}

/**
 * Decodes a ledger; `undefined` if it is torn or invalid. The `id` of a ledger of version 0.1 is
 * empty.
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

/** Total of all leases. */
export function leasedBytes({ leases }: LedgerState): number {
  return Object.values(leases).reduce((sum, bytes) => sum + bytes, 0);
}

/**
 * Whether `now` is a later state of the ledger `before`: not after the file was lost and created
 * anew, or replaced by an older copy.
 */
export function isContinued(before: LedgerState, now: LedgerState): boolean {
  return before.id === now.id && before.granted <= now.granted && before.credited <= now.credited;
}

/**
 * The ledger after a count. The count may or may not have seen concurrent writes and removals, so
 * the ledger is only corrected as far as that is certain; a ledger that may be too low gets the
 * highest possible total.
 */
export function reconcile(now: LedgerState, counted: DirectoryCounted): LedgerState {
  const { before, onDisk, dead, mayBeTooLow } = counted;
  // Another process has created a ledger meanwhile.
  if (before === undefined || !isContinued(before, now)) return now;
  const livingOf = (state: LedgerState): Record<string, number> =>
    Object.fromEntries(Object.entries(state.leases).filter(([tag]) => !dead.has(tag)));
  const leases = livingOf(now);
  const granted = now.granted - before.granted;
  const credited = now.credited - before.credited;
  const upper = onDisk + leasedBytes({ ...before, leases: livingOf(before) }) + granted;
  const lower = onDisk - credited;
  const used = mayBeTooLow || now.used < lower ? upper : Math.min(now.used, upper);
  const replaced = Math.max(0, now.replaced - before.replaced);
  return { ...now, leases, used, replaced, countedAt: Date.now() };
}

function isLedgerState(value: unknown): value is LedgerState {
  if (!isRecord(value)) return false;
  const { id, used, granted, credited, replaced, countedAt, leases } = value;
  if (typeof id !== "string" || !isRecord(leases)) return false;
  const promised = Object.values(leases);
  return promised.length <= MAX_WRITERS &&
    [used, granted, credited, replaced, ...promised].every((bytes) =>
      knownCount(bytes) !== undefined
    ) && Number.isFinite(countedAt);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
