import { assert, assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { type CopyPlan, ENTRY_BYTES, planCopies } from "../../../src/memory/copy_plan.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { CopyOperation, DeviceBuffer } from "../../../src/memory/memory_device.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { strided } from "../../support/copies.ts";
import { runs } from "../../support/runs.ts";

const LIMITS = { offsetAlignment: 256, maxBindingBytes: 2 ** 27 };
const always = (): boolean => true;

type Bytes = Uint8Array<ArrayBuffer>;
type Buffers = readonly Bytes[];

const PATTERN = Uint8Array.from({ length: 2 ** 20 }, (_, i) => i * 7 + (i >> 8));

/** Buffers whose bytes differ from place to place and from buffer to buffer. */
function buffersOf(count: number, byteLength: number): Buffers {
  return Array.from({ length: count }, (_, n) => bufferOf(n, byteLength));
}

function bufferOf(n: number, byteLength: number): Bytes {
  return PATTERN.slice(n * 5_003, n * 5_003 + byteLength);
}

/** What a device does with a plan: dispatches first, their tiles from the last to the first. */
function carryOut({ dispatches, table, copies }: CopyPlan): void {
  for (const { source, destination, unitBytes, tableOffset, tiles } of dispatches.toReversed()) {
    const from = (source.buffer as Uint8Array).subarray(source.byteOffset).subarray(
      0,
      source.byteLength,
    );
    const to = (destination.buffer as Uint8Array).subarray(destination.byteOffset).subarray(
      0,
      destination.byteLength,
    );
    for (let tile = tiles - 1; tile >= 0; tile--) {
      const at = (tableOffset + tile * ENTRY_BYTES) / 4;
      const [sourceUnit = 0, destinationUnit = 0, units = 0] = table.subarray(at, at + 3);
      const start = sourceUnit * unitBytes;
      to.set(from.subarray(start, start + units * unitBytes), destinationUnit * unitBytes);
    }
  }
  new HostDevice().copy(copies);
}

function rarely<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> {
  return fc.oneof({ weight: 5, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });
}

const anyOperation = fc.record({
  source: fc.nat(2),
  destination: fc.nat(2),
  sourceUnit: fc.nat(250),
  gap: fc.nat(3),
  units: fc.integer({ min: 1, max: 12 }),
});
const anyCall = fc.record({
  operations: fc.array(anyOperation, { maxLength: 80, size: "max" }),
  /** Bytes of which offsets and lengths are multiples. */
  unitBytes: fc.constantFrom(4, 16),
  maxBindingBytes: fc.constantFrom(2048, 4096, 65536),
  /** Which operation writes where the one before does, if there are so many. */
  overlapping: rarely(fc.nat(79)),
  /** Which operation reads what others write. */
  chained: rarely(fc.nat(79)),
});
type Call = typeof anyCall extends fc.Arbitrary<infer T> ? T : never;

/** The operations of a call between buffers: 0 to 2 are read, 3 to 5 are written. */
function operationsOn(buffers: Buffers, { operations, unitBytes, ...call }: Call): CopyOperation[] {
  const ends = [0, 0, 0];
  return operations.map(({ source, destination, sourceUnit, gap, units }, i) => {
    const start = (ends[destination] ?? 0) + (i === call.overlapping ? -1 : gap);
    ends[destination] = start + units;
    const from = i === call.chained ? 3 + (destination + 1) % 3 : source;
    return {
      source: buffers[from] as Bytes,
      sourceOffset: sourceUnit * unitBytes,
      destination: buffers[3 + destination] as Bytes,
      destinationOffset: Math.max(0, start) * unitBytes,
      byteLength: units * unitBytes,
    };
  });
}

Deno.test("a plan's result is that of the copies one after another, whatever they are", () => {
  let dispatched = 0;
  fc.assert(
    fc.property(anyCall, (call) => {
      const { maxBindingBytes } = call;
      const [expected, actual] = [buffersOf(6, 15_000), buffersOf(6, 15_000)];
      new HostDevice().copy(operationsOn(expected, call));
      const limits = { offsetAlignment: 32, maxBindingBytes };
      const isBindable = (buffer: DeviceBuffer): boolean => buffer !== actual[2];
      const plan = planCopies(operationsOn(actual, call), limits, isBindable);
      for (const { source, destination, tableOffset, tiles } of plan.dispatches) {
        for (const range of [source, destination]) {
          assert(range.byteLength <= maxBindingBytes, `${range.byteLength} bytes are bound`);
          assertEquals(range.byteOffset % 32, 0);
          assert(isBindable(range.buffer), "a buffer is bound that must not be");
        }
        assertEquals(tableOffset % 32, 0);
        assert(tiles * ENTRY_BYTES <= maxBindingBytes);
        dispatched++;
      }
      carryOut(plan);
      for (const [i, bytes] of actual.entries()) {
        assertSameBytes(bytes, expected[i] as Uint8Array, `buffer ${i}`);
      }
    }),
    runs(200),
  );
  assert(dispatched > 0, "no dispatch was tried");
});

/** Asserts that operations are the same ones; does not print their buffers. */
function assertIs(actual: readonly CopyOperation[], expected: readonly CopyOperation[]): void {
  const numbers = actual.map((operation) => expected.indexOf(operation));
  assertEquals(numbers, [...expected.keys()]);
}

const [A, B, C] = [bufferOf(0, 640_000), bufferOf(1, 640_000), bufferOf(2, 640_000)];

Deno.test("operations between two buffers are one dispatch, in vectors where all suit", () => {
  const operations = strided(A, B, 448, 64);
  const plan = planCopies(operations, LIMITS, always);
  assertIs(plan.copies, []);
  assertEquals(plan.dispatches.map(({ tiles, unitBytes }) => [tiles, unitBytes]), [[448, 16]]);
  const [first, ...others] = operations;
  assert(first !== undefined);
  for (const change of [{ sourceOffset: 4 }, { destinationOffset: 60_004 }, { byteLength: 60 }]) {
    const changed = planCopies([{ ...first, ...change }, ...others], LIMITS, always);
    assertEquals(changed.dispatches[0]?.unitBytes, 4);
  }
});

Deno.test("a dispatch binds no more of a buffer than it needs", () => {
  const [dispatch] = planCopies(strided(A, B, 4, 64, 100), LIMITS, always).dispatches;
  assertEquals([dispatch?.source.byteOffset, dispatch?.source.byteLength], [12_800, 448]);
  assertEquals([dispatch?.destination.byteOffset, dispatch?.destination.byteLength], [6_400, 256]);
});

Deno.test("a long operation is many tiles, one longer than half a binding is a copy", () => {
  const operations = strided(A, B, 4, 80_000);
  assertEquals(planCopies(operations, LIMITS, always).dispatches[0]?.tiles, 20);
  const long = {
    source: A,
    sourceOffset: 1024,
    destination: B,
    destinationOffset: 1024,
    byteLength: 3_500,
  };
  const plan = planCopies(
    [...strided(A, B, 4, 64), long],
    { ...LIMITS, maxBindingBytes: 4096 },
    always,
  );
  assertEquals(plan.dispatches.map(({ tiles }) => tiles), [4]);
  assertIs(plan.copies, [long]);
});

Deno.test("few operations between two buffers are copies", () => {
  const few = strided(A, C, 3, 64);
  const plan = planCopies([...strided(A, B, 4, 64), ...few], LIMITS, always);
  assertEquals(plan.dispatches.length, 1);
  assertIs(plan.copies, few);
});

Deno.test("operations that depend on each other are copies, all in their order", () => {
  const operations = strided(A, B, 16, 64);
  const dependent = [
    // Writes what another one writes.
    ...strided(C, B, 1, 64, 15).map((operation) => ({ ...operation, destinationOffset: 124 })),
    // Reads a buffer that others write.
    ...strided(B, C, 1, 64),
  ];
  assertEquals(dependent.length, 2);
  for (const operation of dependent) {
    const all = [...operations, operation];
    const plan = planCopies(all, LIMITS, always);
    assertEquals(plan.dispatches.length, 0);
    assertIs(plan.copies, all);
  }
});

Deno.test("a plan's table is bounded: what is beyond is copied", () => {
  // 4 KiB of table have room for 256 tiles.
  const limits = { offsetAlignment: 32, maxBindingBytes: 4096 };
  const plan = planCopies(strided(A, B, 400, 64), limits, always);
  const tiles = plan.dispatches.reduce((sum, dispatch) => sum + dispatch.tiles, 0);
  assertEquals([tiles, plan.copies.length], [256, 144]);
});
