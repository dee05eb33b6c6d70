import { assertEquals } from "@std/assert";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { L1Cache } from "../../src/l1/l1_cache.ts";
import { LruPolicy } from "../../src/l1/lru.ts";
import type { MemoryDevice, MemoryRange } from "../../src/memory/memory_device.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { assertSameBytes } from "./bytes.ts";
import { readRange } from "./devices.ts";
import { testBytes } from "./objects.ts";

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
  options: { temporary?: boolean } = {},
): void {
  for (const [i, reservation] of l1.reserveWrite(keys, layout, options).entries()) {
    if (reservation.status !== "success") throw new Error(`No room: ${reservation.status}`);
    const key = keys[i] as ObjectKey;
    l1.device.upload(reservation.range, [testBytes(key, layout.byteLength)]);
  }
  l1.finishWrite(keys);
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
  const { readLockedCount, writeLockedCount, stagingObjectCount, stagingBytes } = l1.reportStatus();
  assertEquals({ readLockedCount, writeLockedCount, stagingObjectCount, stagingBytes }, {
    readLockedCount: 0,
    writeLockedCount: 0,
    stagingObjectCount: 0,
    stagingBytes: 0,
  });
}
