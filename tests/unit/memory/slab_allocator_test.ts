import { assert, assertEquals, assertExists, assertThrows } from "@std/assert";
import * as fc from "fast-check";
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
import { numRuns } from "../../support/runs.ts";

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

function mustAllocate(allocator: SlabAllocator, byteLength: number): Allocation {
  const allocation = allocator.allocate(byteLength);
  assertExists(allocation, `no room for ${byteLength} bytes`);
  return allocation;
}

/** As many objects of one size as fit. */
function fill(allocator: SlabAllocator, byteLength: number): Allocation[] {
  const allocations: Allocation[] = [];
  for (;;) {
    const allocation = allocator.allocate(byteLength);
    if (allocation === null) return allocations;
    allocations.push(allocation);
  }
}

function roundUp(byteLength: number): number {
  return Math.ceil(byteLength / 256) * 256;
}

/** Sizes of the gaps between allocations, over all slabs. */
function gapsIn(slabs: Iterable<Slab>, live: readonly Allocation[]): number[] {
  const gaps: number[] = [];
  for (const slab of slabs) {
    let end = 0;
    const inSlab = live.filter((allocation) => allocation.slab === slab)
      .toSorted((a, b) => a.byteOffset - b.byteOffset);
    for (const { byteOffset, byteLength } of inSlab) {
      assert(byteOffset >= end, `range at ${byteOffset} overlaps one that ends at ${end}`);
      gaps.push(byteOffset - end);
      end = byteOffset + roundUp(byteLength);
    }
    assert(end <= slab.byteLength, "range ends inside its slab");
    gaps.push(slab.byteLength - end);
  }
  return gaps;
}

/** What must hold after every call. */
function assertConsistent(
  allocator: SlabAllocator,
  device: WatchedDevice,
  live: readonly Allocation[],
): void {
  const gaps = gapsIn(device.slabs, live);
  const freeBytes = gaps.reduce((sum, gap) => sum + gap, 0);
  const largestFreeBytes = Math.max(0, ...gaps);
  for (const { slab, buffer, byteOffset, byteLength, reservedBytes } of live) {
    assert(device.slabs.has(slab), "the slab of a live range exists");
    assert(buffer === slab.buffer);
    assertEquals(byteOffset % 256, 0, "alignment");
    assertEquals(reservedBytes, roundUp(byteLength));
  }
  assert(device.slabBytes <= allocator.capacityBytes, "slabs stay within the capacity");
  const used = new Set(live.map(({ slab }) => slab));
  assert(device.slabs.size - used.size <= 1, "at most one empty slab is kept");
  assertEquals(allocator.usedBytes, live.reduce((sum, each) => sum + each.reservedBytes, 0));
  assertEquals(allocator.stats(), {
    usedBytes: allocator.usedBytes,
    slabBytes: device.slabBytes,
    capacityBytes: allocator.capacityBytes,
    largestFreeBytes,
    slabs: device.slabs.size,
    fragmentation: freeBytes === 0 ? 0 : 1 - largestFreeBytes / freeBytes,
  });
}

interface Allocate {
  readonly kind: "allocate";
  readonly byteLength: number;
}
interface Free {
  readonly kind: "free";
  readonly index: number;
}

function steps(maxObjectBytes: number): fc.Arbitrary<(Allocate | Free)[]> {
  const sizes = fc.oneof(
    fc.integer({ min: 1, max: maxObjectBytes }),
    fc.integer({ min: 1, max: maxObjectBytes / 8 }),
    fc.constantFrom(1, 255, 256, 257, 4096, 5000, maxObjectBytes),
  );
  const allocate = sizes.map((byteLength): Allocate => ({ kind: "allocate", byteLength }));
  const free = fc.nat().map((index): Free => ({ kind: "free", index }));
  return fc.array(fc.oneof({ weight: 3, arbitrary: allocate }, { weight: 2, arbitrary: free }), {
    maxLength: 150,
    size: "max",
  });
}

Deno.test("SlabAllocator gives out ranges that never overlap, and keeps exact counters", () => {
  const bounds = fc.constantFrom(
    { capacityBytes: 64 * KIB, slabBytes: 64 * KIB, maxSlabBytes: 2 ** 31 },
    { capacityBytes: 256 * KIB, slabBytes: 64 * KIB, maxSlabBytes: 2 ** 31 },
    { capacityBytes: 200 * KIB, slabBytes: 16 * KIB, maxSlabBytes: 96 * KIB },
    { capacityBytes: 100 * KIB + 256, slabBytes: 12 * KIB + 256, maxSlabBytes: 2 ** 31 },
  );
  fc.assert(
    fc.property(bounds, steps(40 * KIB), ({ maxSlabBytes, ...options }, calls) => {
      const device = new WatchedDevice(maxSlabBytes);
      using allocator = new SlabAllocator(device, options);
      const live: Allocation[] = [];
      for (const call of calls) {
        if (call.kind === "free") {
          const [freed] = live.splice(call.index % Math.max(1, live.length), 1);
          if (freed !== undefined) allocator.free(freed);
        } else {
          const allocation = allocator.allocate(call.byteLength);
          if (allocation === null) assertNoRoom(allocator, device, live, call.byteLength);
          else live.push(allocation);
        }
        assertConsistent(allocator, device, live);
      }
      for (let freed = live.shift(); freed !== undefined; freed = live.shift()) {
        allocator.free(freed);
        assertConsistent(allocator, device, live);
      }
      assertEquals(allocator.stats().fragmentation, 0);
    }),
    numRuns(300),
  );
});

/** A refusal is right: no gap is larger by more than a size class, and no slab could be added. */
function assertNoRoom(
  allocator: SlabAllocator,
  device: WatchedDevice,
  live: readonly Allocation[],
  byteLength: number,
): void {
  const size = roundUp(byteLength);
  const largest = Math.max(0, ...gapsIn(device.slabs, live));
  assert(largest < size * 17 / 16 + 256, `a gap of ${largest} has room for ${size}`);
  assert(
    allocator.capacityBytes - device.slabBytes < size || size > device.maxSlabBytes,
    "another slab has room",
  );
}

Deno.test("SlabAllocator has room for as many equal objects as its capacity says, at any time", () => {
  const shapes = fc.record({
    units: fc.integer({ min: 1, max: 70 }),
    perSlab: fc.integer({ min: 1, max: 20 }),
    slabs: fc.integer({ min: 1, max: 12 }),
    padding: fc.integer({ min: 0, max: 255 }),
  });
  fc.assert(
    fc.property(
      shapes,
      fc.infiniteStream(fc.nat()),
      ({ units, perSlab, slabs, padding }, random) => {
        const device = new WatchedDevice();
        const size = units * 256;
        const slabBytes = size * perSlab;
        using allocator = new SlabAllocator(device, {
          capacityBytes: slabBytes * slabs,
          slabBytes,
        });
        let live = fill(allocator, size - padding);
        for (let round = 0; round < 4; round++) {
          assertEquals(live.length, perSlab * slabs);
          assertEquals(allocator.usedBytes, allocator.capacityBytes);
          assertConsistent(allocator, device, live);
          const kept = live.filter(() => random.next().value % 2 === 0);
          for (const each of live) if (!kept.includes(each)) allocator.free(each);
          live = [...kept, ...fill(allocator, size - padding)];
        }
      },
    ),
    numRuns(100),
  );
});

deviceTest("ranges of an allocator keep their bytes while others come and go", async (device) => {
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

Deno.test("SlabAllocator makes no slab before it needs one", () => {
  const device = new WatchedDevice();
  using allocator = new SlabAllocator(device, { capacityBytes: 1024, slabBytes: 512 });
  assertEquals([device.created, allocator.stats().slabs], [0, 0]);
  mustAllocate(allocator, 512);
  assertEquals(device.created, 1);
  mustAllocate(allocator, 256);
  mustAllocate(allocator, 256);
  assertEquals(device.created, 2);
});

Deno.test("SlabAllocator gives a slab back as soon as it is empty, but keeps the last", () => {
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

Deno.test("SlabAllocator makes a larger slab for an object that is larger than a slab", () => {
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

Deno.test("SlabAllocator uses the room of an empty slab that is too small", () => {
  const device = new WatchedDevice();
  using allocator = new SlabAllocator(device, { capacityBytes: 4096, slabBytes: 1024 });
  const first = mustAllocate(allocator, 256);
  allocator.free(first);
  const second = mustAllocate(allocator, 2560);
  const third = mustAllocate(allocator, 1536);
  assertConsistent(allocator, device, [second, third]);
});

Deno.test("SlabAllocator obeys the device's largest slab", () => {
  const device = new WatchedDevice(1024);
  using allocator = new SlabAllocator(device, { capacityBytes: 8192, slabBytes: 4096 });
  assertEquals(allocator.maxObjectBytes, 1024);
  assertEquals(allocator.allocate(1025), null);
  assertEquals(fill(allocator, 1024).length, 8);
  assertEquals(new Set([...device.slabs].map(({ byteLength }) => byteLength)), new Set([1024]));
});

Deno.test("SlabAllocator.free() refuses a range that is not given out", () => {
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

Deno.test("SlabAllocator.free() refuses a range whose place was given out again", () => {
  using allocator = new SlabAllocator(new WatchedDevice(), { capacityBytes: 1024 });
  const first = mustAllocate(allocator, 256);
  allocator.free(first);
  const second = mustAllocate(allocator, 256);
  assertEquals(second.byteOffset, first.byteOffset);
  assertThrows(() => allocator.free(first), Error, "not allocated");
  assertEquals(allocator.usedBytes, 256);
  allocator.free(second);
});

Deno.test("SlabAllocator gives out no memory that the device does not have", async () => {
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

Deno.test("SlabAllocator drops a failed slab that holds nothing any more", async () => {
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

Deno.test("SlabAllocator drops a failed slab with its last range, if that stays for a while", async () => {
  const device = new WatchedDevice(undefined, () => true);
  using allocator = new SlabAllocator(device, { capacityBytes: 1024, slabBytes: 1024 });
  const allocation = mustAllocate(allocator, 256);
  await allocation.slab.valid;
  await Promise.resolve();
  assertEquals(device.slabs.size, 1);
  allocator.free(allocation);
  assertEquals([device.slabs.size, allocator.usedBytes], [0, 0]);
});

Deno.test("SlabAllocator does not hear of a failed slab after it was released", async () => {
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

Deno.test("a disposed SlabAllocator holds no slab, and its ranges are gone", () => {
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

Deno.test("every size up to a slab gets a range that is large enough", () => {
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
