import { assert, assertEquals } from "@std/assert";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { Slab } from "../../../src/memory/memory_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { LAYOUT, pick, residents, setUp, statuses, writeObjects } from "../../support/l1.ts";
import { testKey, testLayout } from "../../support/objects.ts";

const MIB = 2 ** 20;

Deno.test("HostDevice reports that it is a fallback", () => {
  using device = new HostDevice();
  assertEquals([device.type, device.isFallback, device.isLost], ["host", true, false]);
});

Deno.test("HostDevice.readBack() returns a copy, which does not affect the object", async () => {
  using device = new HostDevice();
  const { buffer } = device.createSlab(1024);
  assert(buffer instanceof Uint8Array);
  const range = { buffer, byteOffset: 256, byteLength: 512 };
  using readBack = await device.readBack([{ range, tailBytes: 64 }]);
  const [part, ...rest] = readBack.objects[0] ?? [];
  assertEquals([part?.byteLength, rest.length], [512 + 64, 0]);
  part?.fill(1);
  assertEquals(buffer, new Uint8Array(1024));
});

Deno.test("HostDevice.countReadable() is unlimited", () => {
  using device = new HostDevice();
  assertEquals(device.countReadable([2 ** 40, 2 ** 40, 4]), 3);
});

/** A host that refuses slabs above a size, as it does when it has no memory for them. */
class PoorHost extends HostDevice {
  override readonly maxSlabBytes = 2 ** 50;
  readonly asked: number[] = [];

  override createSlab(byteLength: number): Slab {
    this.asked.push(byteLength);
    // More than any array can have.
    if (byteLength > 32 * MIB) return { ...super.createSlab(2 ** 49), byteLength };
    return super.createSlab(byteLength);
  }
}

Deno.test("a slab that cannot be allocated is not valid", () => {
  const device = new PoorHost();
  const { valid, byteLength } = device.createSlab(2 ** 49);
  assertEquals([valid, byteLength], [false, 2 ** 49]);
});

Deno.test("without enough memory smaller slabs are tried, then the status is out-of-memory", () => {
  const device = new PoorHost();
  const { l1 } = setUp(8, { device, capacityBytes: 2 ** 30, slabBytes: 2 ** 28 });
  const huge = testLayout(2 ** 29);
  assertEquals(statuses(l1.reserveWrite([testKey(0)], huge)), ["out-of-memory"]);
  writeObjects(l1, [testKey(1)], LAYOUT);
  assertEquals(residents(l1), [1]);
  const [small] = device.asked.splice(-1);
  assertEquals(small, 32 * MIB, `after ${device.asked}`);
  assertEquals(pick(l1, "isHealthy", "slabBytes"), [false, 32 * MIB], "the status says so");
});

Deno.test("a cache on a host without memory stores nothing and never throws", async () => {
  class NoMemory extends HostDevice {
    override createSlab(byteLength: number): Slab {
      return { buffer: new Uint8Array(0), byteLength, valid: false };
    }
  }
  await using cache = await TieredCache.open({
    device: new NoMemory(),
    l1: { capacityBytes: 2 ** 26 },
  });
  for (let n = 0; n < 3; n++) {
    const [reservation] = cache.reserveWrite([testKey(n)], LAYOUT);
    assertEquals(reservation?.status, "out-of-memory");
  }
  const { problems } = cache.reportStatus();
  assertEquals(problems.some((problem) => problem.includes("out of memory")), true);
});
