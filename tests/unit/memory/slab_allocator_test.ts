import { assert, assertEquals, assertExists, assertThrows } from "@std/assert";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { DeviceBuffer, MemoryDevice, Slab } from "../../../src/memory/memory_device.ts";
import {
  type Allocation,
  SlabAllocator,
  type SlabAllocatorOptions,
} from "../../../src/memory/slab_allocator.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { deviceTest, readRange } from "../../support/devices.ts";
import { testBytes, testKey } from "../../support/objects.ts";
import { assertConsistent, fill, mustAllocate, roundUp } from "../../support/slabs.ts";

const KIB = 1024;

/** Host memory that knows its live slabs, and lacks the memory of some. */
class WatchedDevice extends HostDevice {
  readonly slabs = new Set<Slab>();
  created = 0;
  override readonly maxSlabBytes: number;
  readonly #isMissing: (index: number) => boolean;

  constructor(maxSlabBytes = 2 ** 31, isMissing: (index: number) => boolean = () => false) {
    super();
    this.maxSlabBytes = maxSlabBytes;
    this.#isMissing = isMissing;
  }

  override createSlab(byteLength: number): Slab {
    const valid = Promise.resolve(!this.#isMissing(this.created++));
    const slab = { ...super.createSlab(byteLength), valid };
    this.slabs.add(slab);
    return slab;
  }

  override destroySlab(slab: Slab): void {
    assert(this.slabs.delete(slab), "a slab is destroyed once");
  }

  get slabBytes(): number {
    return [...this.slabs].reduce((sum, { byteLength }) => sum + byteLength, 0);
  }
}

deviceTest("ranges keep their bytes while others are allocated and freed", async (device) => {
  using allocator = new SlabAllocator(device, { capacityBytes: 64 * KIB, slabBytes: 16 * KIB });
  const live = new Map<number, Allocation>();
  for (let n = 0; n < 120; n++) {
    const allocation = allocator.allocate(4 * (1 + n * 31 % 900));
    if (allocation === null) {
      const [oldest] = live;
      assertExists(oldest);
      allocator.free(oldest[1]);
      live.delete(oldest[0]);
      continue;
    }
    device.upload(allocation, [testBytes(testKey(n), allocation.byteLength)]);
    live.set(n, allocation);
  }
  assert(live.size > 10);
  for (const [n, range] of live) {
    assertSameBytes(
      await readRange(device, range),
      testBytes(testKey(n), range.byteLength),
      `${n}`,
    );
  }
});

Deno.test("SlabAllocator creates slabs on demand", () => {
  const device = new WatchedDevice();
  using allocator = new SlabAllocator(device, { capacityBytes: 1024, slabBytes: 512 });
  assertEquals([device.created, allocator.stats().slabs], [0, 0]);
  mustAllocate(allocator, 512);
  assertEquals(device.created, 1);
  mustAllocate(allocator, 256);
  mustAllocate(allocator, 256);
  assertEquals(device.created, 2);
});

Deno.test("SlabAllocator releases empty slabs, except the last one", () => {
  const device = new WatchedDevice();
  using allocator = new SlabAllocator(device, { capacityBytes: 1024, slabBytes: 256 });
  const live = fill(allocator, 256);
  for (const [i, allocation] of live.entries()) {
    assertEquals(device.slabs.size, 4 - i);
    allocator.free(allocation);
  }
  assertEquals(device.slabs.size, 1);
  mustAllocate(allocator, 256);
  assertEquals(device.created, 4, "the kept slab is used again");
});

Deno.test("SlabAllocator.allocate() returns null when nothing fits", () => {
  const device = new WatchedDevice();
  using allocator = new SlabAllocator(device, { capacityBytes: 1024 });
  assertEquals(allocator.allocate(1025), null);
  const live = fill(allocator, 256);
  assertEquals(live.length, 4);
  assertEquals(allocator.allocate(1), null);
  allocator.free(live[1] as Allocation);
  allocator.free(live[3] as Allocation);
  assertEquals(allocator.allocate(512), null, "two ranges of 256, not one of 512");
  allocator.free(live[2] as Allocation);
  assertEquals(mustAllocate(allocator, 768).byteOffset, 256);
});

Deno.test("SlabAllocator creates a larger slab for a larger object", () => {
  const device = new WatchedDevice();
  using allocator = new SlabAllocator(device, { capacityBytes: 8192, slabBytes: 1024 });
  mustAllocate(allocator, 256);
  const large = mustAllocate(allocator, 5000);
  assertEquals(large.slab.byteLength, 5120);
  assertEquals(allocator.maxObjectBytes, 8192);
  assertEquals(allocator.stats().slabBytes, 6144);
});

for (const small of [256, 1024]) {
  Deno.test(`an empty SlabAllocator has room for its largest object, after one of ${small}`, () => {
    const device = new WatchedDevice();
    using allocator = new SlabAllocator(device, { capacityBytes: 8192, slabBytes: 1024 });
    allocator.free(mustAllocate(allocator, small));
    const largest = mustAllocate(allocator, allocator.maxObjectBytes);
    assertConsistent(allocator, device, [largest]);
    allocator.free(largest);
    allocator.free(mustAllocate(allocator, small));
    assertConsistent(allocator, device, []);
  });
}

Deno.test("SlabAllocator replaces an empty slab that is too small", () => {
  const device = new WatchedDevice();
  using allocator = new SlabAllocator(device, { capacityBytes: 4096, slabBytes: 1024 });
  const first = mustAllocate(allocator, 256);
  allocator.free(first);
  const second = mustAllocate(allocator, 2560);
  const third = mustAllocate(allocator, 1536);
  assertConsistent(allocator, device, [second, third]);
});

Deno.test("SlabAllocator respects the device's maximum slab size", () => {
  const device = new WatchedDevice(1024);
  using allocator = new SlabAllocator(device, { capacityBytes: 8192, slabBytes: 4096 });
  assertEquals(allocator.maxObjectBytes, 1024);
  assertEquals(allocator.allocate(1025), null);
  assertEquals(fill(allocator, 1024).length, 8);
  assertEquals(new Set([...device.slabs].map(({ byteLength }) => byteLength)), new Set([1024]));
});

Deno.test("SlabAllocator.free() rejects a range that is not allocated", () => {
  using allocator = new SlabAllocator(new WatchedDevice(), { capacityBytes: 1024 });
  using other = new SlabAllocator(new WatchedDevice(), { capacityBytes: 1024 });
  const [first, second, third] = fill(allocator, 256);
  assert(first !== undefined && second !== undefined && third !== undefined);
  allocator.free(first);
  assertThrows(() => allocator.free(first), Error, "not allocated");
  allocator.free(second);
  assertThrows(() => allocator.free(second), Error, "not allocated", "joined with its neighbour");
  assertThrows(() => allocator.free(mustAllocate(other, 256)), Error, "not allocated");
  assertThrows(() => allocator.free({ ...third, byteOffset: 0 }), Error, "not allocated");
  assertEquals(allocator.usedBytes, 512);
});

Deno.test("SlabAllocator.free() rejects a range whose block was allocated again", () => {
  using allocator = new SlabAllocator(new WatchedDevice(), { capacityBytes: 1024 });
  const first = mustAllocate(allocator, 256);
  allocator.free(first);
  const second = mustAllocate(allocator, 256);
  assertEquals(second.byteOffset, first.byteOffset);
  assertThrows(() => allocator.free(first), Error, "not allocated");
  assertEquals(allocator.usedBytes, 256);
  allocator.free(second);
});

Deno.test("SlabAllocator allocates no memory that the device failed to provide", async () => {
  const device = new WatchedDevice(undefined, (index) => index === 1);
  const held = new Map<Slab, Allocation[]>();
  const failed: Slab[] = [];
  using allocator = new SlabAllocator(device, {
    capacityBytes: 4096,
    slabBytes: 1024,
    onSlabFailed: (slab) => {
      failed.push(slab);
      for (const allocation of held.get(slab) ?? []) allocator.free(allocation);
      held.delete(slab);
    },
  });
  for (let i = 0; i < 6; i++) {
    const allocation = mustAllocate(allocator, 256);
    held.set(allocation.slab, [...held.get(allocation.slab) ?? [], allocation]);
  }
  const bad = [...device.slabs][1];
  await bad?.valid;
  await Promise.resolve();
  assertEquals(failed, [bad]);
  assertConsistent(allocator, device, [...held.values()].flat());
  assertEquals([allocator.usedBytes, device.slabs.size], [1024, 1]);
  // What is there stays in use; more is not asked for.
  assertEquals(allocator.allocate(256), null);
  assertEquals(device.created, 2);
  const [good] = held.values();
  allocator.free(good?.[0] as Allocation);
  mustAllocate(allocator, 256);
});

Deno.test("SlabAllocator releases a failed slab that is empty", async () => {
  const device = new WatchedDevice(undefined, () => true);
  const failed: Slab[] = [];
  const options: SlabAllocatorOptions = {
    capacityBytes: 4096,
    slabBytes: 1024,
    onSlabFailed: (slab) => failed.push(slab),
  };
  using allocator = new SlabAllocator(device, options);
  const allocation = mustAllocate(allocator, 256);
  allocator.free(allocation);
  await allocation.slab.valid;
  await Promise.resolve();
  assertEquals(failed, [allocation.slab]);
  assertConsistent(allocator, device, []);
  assertEquals([device.slabs.size, allocator.allocate(256)], [0, null]);
});

Deno.test("SlabAllocator releases a failed slab with its last range", async () => {
  const device = new WatchedDevice(undefined, () => true);
  using allocator = new SlabAllocator(device, { capacityBytes: 1024, slabBytes: 1024 });
  const allocation = mustAllocate(allocator, 256);
  await allocation.slab.valid;
  await Promise.resolve();
  assertEquals(device.slabs.size, 1);
  allocator.free(allocation);
  assertEquals([device.slabs.size, allocator.usedBytes], [0, 0]);
});

Deno.test("SlabAllocator ignores the failure of a released slab", async () => {
  const device = new WatchedDevice(undefined, () => true);
  const failed: Slab[] = [];
  const allocator = new SlabAllocator(device, {
    capacityBytes: 1024,
    onSlabFailed: (slab) => failed.push(slab),
  });
  const { slab } = mustAllocate(allocator, 256);
  allocator[Symbol.dispose]();
  await slab.valid;
  await Promise.resolve();
  assertEquals([failed, device.slabs.size], [[], 0]);
});

Deno.test("a disposed SlabAllocator has no slabs and no ranges", () => {
  const device: WatchedDevice = new WatchedDevice();
  const allocator = new SlabAllocator(device, { capacityBytes: 1024, slabBytes: 256 });
  const [first] = fill(allocator, 256);
  allocator[Symbol.dispose]();
  assertEquals([device.slabs.size, allocator.usedBytes, allocator.stats().slabBytes], [0, 0, 0]);
  assertThrows(() => allocator.free(first as Allocation), Error, "not allocated");
  allocator[Symbol.dispose]();
});

for (const value of [0, -256, 255, 257, NaN, Infinity]) {
  Deno.test(`SlabAllocator refuses ${value} as a capacity and as a slab size`, () => {
    const device: MemoryDevice = new HostDevice();
    assertThrows(
      () => new SlabAllocator(device, { capacityBytes: value }),
      RangeError,
      "capacityBytes",
    );
    assertThrows(
      () => new SlabAllocator(device, { capacityBytes: 1024, slabBytes: value }),
      RangeError,
      "slabBytes",
    );
  });
}

for (const byteLength of [0, -1, 0.5, NaN, Infinity]) {
  Deno.test(`SlabAllocator.allocate() refuses ${byteLength} bytes`, () => {
    using allocator = new SlabAllocator(new HostDevice(), { capacityBytes: 1024 });
    assertThrows(() => allocator.allocate(byteLength), RangeError, "positive");
  });
}

Deno.test("ranges of all sizes up to a slab are large enough", () => {
  // Each size class and its edges, on a device that has no memory behind its slabs.
  const buffer: DeviceBuffer = new Uint8Array();
  const device = Object.assign(new HostDevice(), {
    createSlab: (byteLength: number): Slab => ({
      buffer,
      byteLength,
      valid: Promise.resolve(true),
    }),
  });
  const capacityBytes = 2 ** 31;
  for (let units = 1; units < capacityBytes / 256; units = Math.ceil(units * 1.01)) {
    for (const byteLength of [units * 256, units * 256 + 1]) {
      using allocator = new SlabAllocator(device, { capacityBytes, slabBytes: capacityBytes });
      const first = mustAllocate(allocator, byteLength);
      assertEquals(first.reservedBytes, roundUp(byteLength));
      const rest = capacityBytes - first.reservedBytes;
      assertEquals(allocator.stats().largestFreeBytes, rest);
      if (rest > 0) assertEquals(mustAllocate(allocator, rest).byteOffset, first.reservedBytes);
      allocator.free(first);
      assertEquals(mustAllocate(allocator, byteLength).byteOffset, 0);
    }
  }
});

Deno.test("SlabAllocator tries smaller slabs when the device has no memory for a large one", async () => {
  const MIB = 2 ** 20;
  const created: number[] = [];
  const device = new HostDevice();
  // Lengths are all that is asked of these slabs.
  device.createSlab = (byteLength) => {
    created.push(byteLength / MIB);
    return { buffer: new Uint8Array(0), byteLength, valid: Promise.resolve(byteLength < 48 * MIB) };
  };
  const failed: Slab[] = [];
  const allocator = new SlabAllocator(device, {
    capacityBytes: 256 * MIB,
    slabBytes: 128 * MIB,
    onSlabFailed(slab) {
      failed.push(slab);
      for (const each of allocations.splice(0)) allocator.free(each);
    },
  });
  const allocations: Allocation[] = [];
  for (let attempt = 0; attempt < 4; attempt++) {
    const allocation = allocator.allocate(MIB);
    if (allocation !== null) allocations.push(allocation);
    await Promise.resolve();
    await Promise.resolve();
  }
  assertEquals(created, [128, 64, 32]);
  assertEquals([failed.length, allocations.length], [2, 2]);
  assertEquals(allocator.allocate(64 * MIB), null, "so much was refused before");
  assertEquals(created.length, 3);
});
