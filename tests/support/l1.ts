import { assert, assertEquals } from "@std/assert";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import {
  L1Cache,
  type L1CacheOptions,
  type L1Lease,
  type L1StatusReport,
  type ReadReservation,
  type ReserveWriteOptions,
  type StagedObject,
  type WriteReservation,
} from "../../src/l1/l1_cache.ts";
import { LruPolicy } from "../../src/policies/eviction_policy.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import type { MemoryDevice, MemoryRange } from "../../src/memory/memory_device.ts";
import type { Clock } from "../../src/base/clock.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { assertSameBytes } from "./bytes.ts";
import { readRange } from "./devices.ts";
import { testBytes, testKey, testKeys, testLayout } from "./objects.ts";

/** Bytes of an object of {@linkcode LAYOUT}. */
export const SIZE = 1024;
/** The layout that tests of L1 use. */
export const LAYOUT = testLayout(SIZE);
/** Life of a write lock unless a test sets another. */
export const WRITE_TTL_MS = 600_000;
/** Life of a read lock unless a test sets another. */
export const READ_TTL_MS = 300_000;

/** An L1 that evicts what was used longest ago. */
export function lruL1(
  device: MemoryDevice,
  clock: Clock,
  capacityBytes: number,
  options: { readTtlMs?: number; writeTtlMs?: number } = {},
): L1Cache {
  return new L1Cache({ ...options, device, clock, capacityBytes, policy: new LruPolicy() });
}

/** Does what an engine does: writes objects with the bytes that belong under their keys. */
export function writeObjects(
  l1: L1Cache,
  keys: readonly ObjectKey[],
  layout: ObjectLayout,
  options: { transient?: boolean } = {},
): void {
  const staged = stage(l1, keys, layout, options);
  for (const { key, range } of staged) l1.device.upload(range, [testBytes(key, range.byteLength)]);
  l1.finishWrite(staged);
}

/** Asserts that ranges hold the bytes that belong under the keys. */
export async function assertRanges(
  device: MemoryDevice,
  ranges: readonly MemoryRange[],
  keys: readonly ObjectKey[],
): Promise<void> {
  assertEquals(ranges.length, keys.length, "objects");
  for (const [i, range] of ranges.entries()) {
    const key = keys[i] as ObjectKey;
    const expected = testBytes(key, range.byteLength);
    assertSameBytes(await readRange(device, range), expected, `object ${i}`);
  }
}

/** Asserts that nothing in L1 is locked or staged. */
export function assertNoLocks(l1: L1Cache): void {
  const { readLockedCount, writeLockedCount, stagingObjectCount, stagingBytes, fillingBytes } = l1
    .reportStatus();
  const counts = { readLockedCount, writeLockedCount, stagingObjectCount, stagingBytes };
  assertEquals({ ...counts, fillingBytes }, {
    readLockedCount: 0,
    writeLockedCount: 0,
    stagingObjectCount: 0,
    stagingBytes: 0,
    fillingBytes: 0,
  });
}

/** A cache in host memory, and what its listeners heard. */
export interface SetUp {
  /** The cache. */
  readonly l1: L1Cache;
  /** Its clock. */
  readonly clock: ManualClock;
  /** What listeners heard, in order. */
  readonly heard: string[];
}

/** A cache with room for `objects` objects. */
export function setUp(objects = 8, options: Partial<L1CacheOptions> = {}): SetUp {
  const clock = new ManualClock();
  const l1 = new L1Cache({
    device: new HostDevice(),
    clock,
    capacityBytes: objects * SIZE,
    policy: new LruPolicy(),
    ...options,
  });
  const heard: string[] = [];
  l1.addListener({
    written: (written) => heard.push(`written ${written.map(({ key }) => nameOf(key)).join(" ")}`),
    removed: (key, reason) => heard.push(`${reason} ${nameOf(key)}`),
  });
  return { l1, clock, heard };
}

const NAMES = new Map(testKeys(64).map(({ chunkHashHex }, n) => [chunkHashHex, n]));

/** The number that a test key was made of, whatever its salt. */
export function nameOf(key: ObjectKey): string {
  return String(NAMES.get(key.chunkHashHex));
}

/** The outcomes of a batch. */
export function statuses(reservations: readonly { readonly status: string }[]): string[] {
  return reservations.map(({ status }) => status);
}

/** Reserves room for all of a batch. */
export function stage(
  l1: L1Cache,
  keys: readonly ObjectKey[],
  layout: ObjectLayout = LAYOUT,
  options: ReserveWriteOptions = {},
): StagedObject[] {
  return stagedOf(l1.reserveWrite(keys, layout, options));
}

/** The room of a batch that got it all. */
export function stagedOf(reservations: readonly WriteReservation[]): StagedObject[] {
  return reservations.map((reservation) => {
    if (reservation.status !== "success") throw new Error(`No room: ${reservation.status}`);
    return reservation.staged;
  });
}

/** The leases of a batch that got them all. */
export function leasesOf(reservations: readonly ReadReservation[]): L1Lease[] {
  return reservations.map((reservation) => {
    if (reservation.status !== "success") throw new Error(`No lease: ${reservation.status}`);
    return reservation.lease;
  });
}

/** Finishes objects in memory that is known to be there, and leases them. */
export function finishAndRead(l1: L1Cache, staged: readonly StagedObject[]): ReadReservation[] {
  const reservations = l1.finishWriteAndReserveRead(staged);
  assert(Array.isArray(reservations), "the device answers at once");
  return reservations;
}

/** A lease of object `n`. */
export function lease(l1: L1Cache, n: number): L1Lease {
  return leasesOf(l1.reserveRead([testKey(n)]))[0] as L1Lease;
}

/** The numbers of the objects that are resident. */
export function residents(l1: L1Cache): number[] {
  return [...Array(64).keys()].filter((n) => l1.has(testKey(n)));
}

/** Numbers of a status report that a test cares for. */
export function pick<K extends keyof L1StatusReport>(
  l1: L1Cache,
  ...names: K[]
): L1StatusReport[K][] {
  const report = l1.reportStatus();
  return names.map((name) => report[name]);
}
