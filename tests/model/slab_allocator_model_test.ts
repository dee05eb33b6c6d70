import { assert, assertEquals } from "@std/assert";
import * as fc from "../support/fast_check.ts";
import { type Allocation, SlabAllocator } from "../../src/memory/slab_allocator.ts";
import { FragileDevice, microtasks } from "../support/fragile_device.ts";
import { runs } from "../support/runs.ts";
import { assertConsistent, fill, gapsIn, roundUp } from "../support/slabs.ts";

// Random calls of a SlabAllocator next to a list of the ranges that it has returned: after each
// call, their locations, the free space between them and every counter are compared.

const KIB = 1024;
const LARGEST = 40 * KIB;

type Call =
  | { readonly kind: "allocate"; readonly byteLength: number }
  | { readonly kind: "free" | "fail"; readonly index: number };

const sizes = fc.oneof(
  fc.integer({ min: 1, max: LARGEST }),
  fc.integer({ min: 1, max: LARGEST / 8 }),
  fc.constantFrom(1, 255, 256, 257, 4096, 5000, LARGEST),
);
const calls: fc.Arbitrary<Call> = fc.oneof(
  {
    weight: 30,
    arbitrary: fc.record({ kind: fc.constant("allocate" as const), byteLength: sizes }),
  },
  { weight: 20, arbitrary: fc.record({ kind: fc.constant("free" as const), index: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("fail" as const), index: fc.nat(7) }) },
);

/** An allocator and its expected contents. */
class Ledger implements Disposable {
  readonly device: FragileDevice;
  readonly allocator: SlabAllocator;
  live: Allocation[] = [];
  /** Maximum bytes in slabs; less than the capacity after a slab could not be allocated. */
  #limit: number;

  constructor(bounds: { capacityBytes: number; slabBytes: number; maxSlabBytes: number }) {
    this.device = new FragileDevice({ maxSlabBytes: bounds.maxSlabBytes, answersLate: true });
    this.#limit = bounds.capacityBytes;
    this.allocator = new SlabAllocator(this.device, {
      ...bounds,
      onSlabFailed: (slab) => {
        for (const each of this.live.filter((allocation) => allocation.slab === slab)) {
          this.#free(each);
        }
      },
    });
  }

  async run(call: Call): Promise<void> {
    switch (call.kind) {
      case "allocate": {
        const allocation = this.allocator.allocate(call.byteLength);
        if (allocation === null) this.#assertNoRoom(call.byteLength);
        else this.live.push(allocation);
        break;
      }
      case "free": {
        const freed = this.live[call.index % Math.max(1, this.live.length)];
        if (freed !== undefined) this.#free(freed);
        break;
      }
      case "fail": {
        const slabs = [...this.device.slabs];
        const slab = slabs[call.index % Math.max(1, slabs.length)];
        if (slab === undefined) break;
        this.#limit = this.device.slabBytes - slab.byteLength;
        this.device.answer(slab, false);
        await microtasks();
        assert(!this.device.slabs.has(slab), "a slab that does not exist is released");
      }
    }
  }

  check(): void {
    const { allocator, device, live } = this;
    assertConsistent(allocator, device, live);
    assert(device.slabBytes <= this.#limit, "no more is asked for than there is");
    assertEquals(allocator.unusedBytes, this.#limit - allocator.usedBytes);
  }

  /** Frees everything: one empty slab may be left, and then not even that. */
  [Symbol.dispose](): void {
    for (const each of this.live) {
      this.#free(each);
      this.check();
    }
    const { usedBytes, fragmentation } = this.allocator.stats();
    assertEquals([usedBytes, fragmentation], [0, 0]);
    this.allocator[Symbol.dispose]();
    assertEquals(this.device.slabs.size, 0);
  }

  #free(allocation: Allocation): void {
    this.live = this.live.filter((each) => each !== allocation);
    this.allocator.free(allocation);
  }

  /** Checks a refusal: no gap is larger by more than a size class, and no slab could be added. */
  #assertNoRoom(byteLength: number): void {
    const { device, live } = this;
    const size = roundUp(byteLength);
    const largest = Math.max(0, ...gapsIn(device.slabs, live));
    assert(largest < size * 17 / 16 + 256, `a gap of ${largest} has room for ${size}`);
    const canGrow = this.#limit - device.slabBytes >= size && size <= device.maxSlabBytes;
    assert(!canGrow, "another slab has room");
  }
}

Deno.test("SlabAllocator gives out ranges that never overlap, and keeps exact counters", async () => {
  const bounds = fc.constantFrom(
    { capacityBytes: 64 * KIB, slabBytes: 64 * KIB, maxSlabBytes: 2 ** 31 },
    { capacityBytes: 256 * KIB, slabBytes: 64 * KIB, maxSlabBytes: 2 ** 31 },
    { capacityBytes: 200 * KIB, slabBytes: 16 * KIB, maxSlabBytes: 96 * KIB },
    { capacityBytes: 100 * KIB + 256, slabBytes: 12 * KIB + 256, maxSlabBytes: 2 ** 31 },
  );
  const sequences = fc.array(calls, { maxLength: 100, size: "max" });
  await fc.assert(
    fc.asyncProperty(bounds, sequences, async (bound, sequence) => {
      using ledger = new Ledger(bound);
      for (const call of sequence) {
        await ledger.run(call);
        ledger.check();
      }
    }),
    runs(3_000),
  );
});

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
        const device = new FragileDevice();
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
    runs(500),
  );
});
