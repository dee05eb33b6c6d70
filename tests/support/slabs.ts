import { assert, assertEquals, assertExists } from "@std/assert";
import type { Slab } from "../../src/memory/memory_device.ts";
import type { Allocation, SlabAllocator } from "../../src/memory/slab_allocator.ts";

/** A device that tracks its live slabs. */
export interface SlabWatcher {
  /** Live slabs. */
  readonly slabs: ReadonlySet<Slab>;
  /** Their total size in bytes. */
  readonly slabBytes: number;
}

/** Allocates a range, which must succeed. */
export function mustAllocate(allocator: SlabAllocator, byteLength: number): Allocation {
  const allocation = allocator.allocate(byteLength);
  assertExists(allocation, `no room for ${byteLength} bytes`);
  return allocation;
}

/** Allocates objects of one size until none fits. */
export function fill(allocator: SlabAllocator, byteLength: number): Allocation[] {
  const allocations: Allocation[] = [];
  for (;;) {
    const allocation = allocator.allocate(byteLength);
    if (allocation === null) return allocations;
    allocations.push(allocation);
  }
}

/** Bytes that an object occupies. */
export function roundUp(byteLength: number): number {
  return Math.ceil(byteLength / 256) * 256;
}

/** Sizes of the gaps between allocations in all slabs. */
export function gapsIn(slabs: Iterable<Slab>, live: readonly Allocation[]): number[] {
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

/** Checks the invariants that hold after every call. */
export function assertConsistent(
  allocator: SlabAllocator,
  device: SlabWatcher,
  live: readonly Allocation[],
): void {
  const gaps = gapsIn(device.slabs, live);
  const freeBytes = gaps.reduce((sum, gap) => sum + gap, 0);
  const largestFreeBytes = Math.max(0, ...gaps);
  for (const { slab, buffer, byteOffset, byteLength, reservedBytes } of live) {
    assert(device.slabs.has(slab), "the slab of a live range exists");
    assert(buffer === slab.buffer);
    assert(byteOffset % 256 === 0, "alignment");
    assert(reservedBytes === roundUp(byteLength), "rounded up to the alignment");
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
