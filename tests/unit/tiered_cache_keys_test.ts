import { assertEquals } from "@std/assert";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { testKeys, testLayout } from "../support/objects.ts";

const layout = testLayout(1024);
const keys = testKeys(2);

type Call = (cache: TieredCache) => unknown;

/** Invalid arguments from JavaScript, and the messages they cause. */
const wrong: Record<string, readonly [call: Call, message: string]> = {
  "match() without keys": [
    (cache) => cache.match(undefined as never, layout),
    "keys of match() must be an array: received undefined",
  ],
  "match() of one key": [
    (cache) => cache.match(keys[0] as never, layout),
    "keys of match() must be an array: received an ObjectKey",
  ],
  "match() without a layout": [
    (cache) => cache.match(keys, undefined as never),
    "layout must be an object, as kvLayout() returns it: received undefined",
  ],
  "matchGroups() without groups": [
    (cache) => cache.matchGroups(undefined as never),
    "groups of keys must be an array: received undefined",
  ],
  "matchGroups() of nothing": [
    (cache) => cache.matchGroups([undefined as never]),
    "keys of a group must be an array: received undefined",
  ],
  "warm() of a group without keys": [
    (cache) => cache.warm([{ layout } as never]),
    "keys of a group must be an array: received undefined",
  ],
  "reserveWrite() without keys": [
    (cache) => cache.reserveWrite(undefined as never, layout),
    "keys of reserveWrite() must be an array: received undefined",
  ],
  "reserveWrite() without a layout": [
    (cache) => cache.reserveWrite(keys, null as never),
    "layout must be an object, as kvLayout() returns it: received null",
  ],
  "pin() of a string": [
    (cache) => cache.pin("all" as never),
    "keys of pin() must be an array: received a string",
  ],
  "unpin() without keys": [
    (cache) => cache.unpin(undefined as never),
    "keys of unpin() must be an array: received undefined",
  ],
  "ttl() without keys": [
    (cache) => cache.ttl(undefined as never, 1),
    "keys of ttl() must be an array: received undefined",
  ],
  "touch() without keys": [
    (cache) => cache.touch(undefined as never),
    "keys of touch() must be an array: received undefined",
  ],
  "leaseResident() without keys": [
    (cache) => cache.leaseResident(undefined as never),
    "keys of leaseResident() must be an array: received undefined",
  ],
};

for (const [what, [call, message]] of Object.entries(wrong)) {
  Deno.test(`TieredCache says what is wrong with ${what}`, async () => {
    await using cache = await TieredCache.open({ device: new HostDevice() });
    const error = await (async () => await call(cache))().catch((error: unknown) => error);
    assertEquals([error instanceof TypeError, (error as Error)?.message], [true, message]);
  });
}
