import { assertEquals, assertThrows } from "@std/assert";
import mock from "../../../adapters/mock.ts";
import type { AdapterError, L2Adapter } from "../../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import { ConfigError } from "../../../src/base/config_error.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { testObject } from "../../support/fs_adapter.ts";
import { testKey, testKeys } from "../../support/objects.ts";

const GIB = 2 ** 30;
const call = { signal: new AbortController().signal };
const lookupCall = { ...call, prefix: false };

/** A mock adapter for `objects` objects of 1000 bytes, one per millisecond. */
function openMock(objects: number): { adapter: L2Adapter; clock: ManualClock; errors: string[] } {
  const clock = new ManualClock();
  const values = parseAdapterConfig(mock, {
    max_size_gb: objects * 1000 / GIB,
    mock_bandwidth_gb: 1_000_000 / GIB,
  });
  const errors: string[] = [];
  const onError = ({ message }: AdapterError): void => void errors.push(message);
  const adapter = mock.create(values, testEnvironment({ clock, onError })) as L2Adapter;
  return { adapter, clock, errors };
}

async function store(
  { adapter, clock }: { adapter: L2Adapter; clock: ManualClock },
  numbers: readonly number[],
  byteLength = 1000,
): Promise<string> {
  const objects = numbers.map((n) => testObject(testKey(n), byteLength));
  const storing = adapter.store(objects, call);
  await clock.advance(1000);
  return String((await storing).stored);
}

async function held({ adapter }: { adapter: L2Adapter }, count: number): Promise<string> {
  const keys = testKeys(count);
  const found = await adapter.lookupAndLock(keys, lookupCall);
  adapter.unlock?.(found.gather(keys));
  return String(found);
}

Deno.test("the oldest objects are evicted first, of a chain its end", async () => {
  const opened = openMock(3);
  for (const n of [0, 1, 2]) assertEquals(await store(opened, [n]), "1");
  assertEquals(await store(opened, [3]), "1");
  assertEquals(await held(opened, 4), "0111");
  assertEquals(await store(opened, [4, 5]), "11");
  assertEquals(await held(opened, 6), "010011");
});

Deno.test("locked objects stay until all locks are released", async () => {
  const opened = openMock(2);
  await store(opened, [0, 1]);
  const key = testKey(0);
  for (let i = 0; i < 2; i++) await opened.adapter.lookupAndLock([key], lookupCall);
  assertEquals(String((await opened.adapter.delete?.([key], call))?.deleted), "0");
  await store(opened, [2]);
  assertEquals(await held(opened, 3), "101");
  opened.adapter.unlock?.([key]);
  await store(opened, [3]);
  assertEquals(await held(opened, 4), "1001");
  opened.adapter.unlock?.([key]);
  const deletion = await opened.adapter.delete?.([key, testKey(1)], call);
  assertEquals([String(deletion?.deleted), deletion?.bytes], ["10", 1000]);
});

Deno.test("an object that does not fit is not stored, and evicts nothing", async () => {
  const opened = openMock(2);
  await store(opened, [0, 1]);
  assertEquals(await store(opened, [2], 2001), "0");
  assertEquals(await held(opened, 3), "110");
  await opened.adapter.lookupAndLock(testKeys(2), lookupCall);
  assertEquals(await store(opened, [3]), "0");
  assertEquals(await held(opened, 4), "1100");
  const full = "2000 of 2000 are used";
  assertEquals(opened.errors, [
    "mock: store failed: RangeError: Object of 2001 bytes is larger than the capacity of 2000 bytes",
    `mock: store failed: No room for 1000 bytes: ${full}, 2 objects are locked`,
  ]);
});

Deno.test("a transfer takes as long as the bandwidth requires, and ends when aborted", async () => {
  const { adapter, clock } = openMock(10);
  const controller = new AbortController();
  let answer: string | undefined;
  const object = testObject(testKey(0), 5000);
  adapter.store([object], call).then(({ stored }) => answer = String(stored));
  await clock.advance(4.9);
  assertEquals(answer, undefined);
  await clock.advance(0.2);
  assertEquals(answer, "1");
  const loading = adapter.load([object], { signal: controller.signal });
  controller.abort();
  assertEquals(String(await loading), "0");
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("usage and status count bytes, objects and locks", async () => {
  const opened = openMock(5);
  await store(opened, [0, 1, 2]);
  await opened.adapter.lookupAndLock([testKey(1)], lookupCall);
  const usage = { usedBytes: 3000, capacityBytes: 5000, objectCount: 3 };
  assertEquals(await opened.adapter.usage?.(call), usage);
  assertEquals(opened.adapter.reportStatus?.(), {
    storedObjectCount: 3,
    lockedKeyCount: 1,
    currentSizeBytes: 3000,
    maxCapacityBytes: 5000,
  });
});

for (const key of ["max_size_gb", "mock_bandwidth_gb"]) {
  for (const value of [undefined, 0, -1, NaN, Infinity, "1", true]) {
    Deno.test(`${key} ${String(value)} is refused`, () => {
      const parse = () =>
        parseAdapterConfig(mock, { max_size_gb: 1, mock_bandwidth_gb: 1, [key]: value });
      assertThrows(parse, ConfigError, key);
    });
  }
}
