import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import * as fc from "../../../support/fast_check.ts";
import { OldestFiles } from "../../../../adapters/_fs/oldest_files.ts";
import { runs } from "../../../support/runs.ts";

function offer(oldest: OldestFiles, times: readonly number[]): void {
  oldest.startWalk();
  for (const [i, usedAt] of times.entries()) {
    oldest.offer({ path: `/${i}`, object: "key-in-file", size: 100, diskBytes: 4096, usedAt });
  }
  oldest.endWalk();
}

function takeAll(oldest: OldestFiles): number[] {
  const times: number[] = [];
  for (;;) {
    const taken = oldest.take(4096);
    if (taken.length === 0) return times;
    times.push(...taken.map(({ usedAt }) => usedAt));
  }
}

/** A permutation of the numbers below `count`. */
function scatter(i: number, count: number): number {
  return (i * 7919) % count;
}

Deno.test("files are taken oldest first", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(1000), { maxLength: 200 }), (times) => {
      const oldest = new OldestFiles();
      offer(oldest, times);
      assertEquals(takeAll(oldest), times.toSorted((a, b) => a - b));
    }),
    runs(200),
  );
});

Deno.test("of many files the oldest are remembered, whatever their order", () => {
  const orders = [(i: number) => i, (i: number, n: number) => n - 1 - i, scatter];
  for (
    const [count, order] of [4097, 10_000, 50_000].flatMap((n) =>
      orders.map((o) => [n, o] as const)
    )
  ) {
    const times = Array.from({ length: count }, (_, i) => order(i, count));
    const oldest = new OldestFiles();
    offer(oldest, times);
    assertLessOrEqual(oldest.size, Math.max(4096, count / 8));
    const taken = takeAll(oldest);
    assert(taken.length >= 4096);
    assertEquals(taken.slice(0, 4096), Array.from({ length: 4096 }, (_, i) => i));
    assertEquals(taken, taken.toSorted((a, b) => a - b));
  }
});

Deno.test("take() returns enough files for the bytes, but only a few", () => {
  const oldest = new OldestFiles();
  offer(oldest, [5, 3, 1, 4, 2]);
  assertEquals(oldest.take(0), []);
  assertEquals(oldest.take(-1), []);
  assertEquals(oldest.take(1).map(({ usedAt }) => usedAt), [1]);
  assertEquals(oldest.take(4097).map(({ usedAt }) => usedAt), [2, 3]);
  assertEquals(oldest.take(10 ** 9).map(({ usedAt }) => usedAt), [4, 5]);
  offer(oldest, Array.from({ length: 100 }, (_, i) => i));
  assertEquals(oldest.take(10 ** 9).length, 8);
});

Deno.test("during a walk, the oldest eighth of the files seen can be taken", () => {
  const oldest = new OldestFiles();
  oldest.startWalk();
  assertEquals(oldest.take(10 ** 9), []);
  const offerOne = (i: number): void =>
    oldest.offer({
      path: `/${i}`,
      object: "key-in-file",
      size: 100,
      diskBytes: 4096,
      usedAt: scatter(i, 1000),
    });
  for (let i = 0; i < 40; i++) offerOne(i);
  const seen = Array.from({ length: 40 }, (_, i) => scatter(i, 1000)).sort((a, b) => a - b);
  assertEquals(takeAll(oldest), seen.slice(0, 5));
  for (let i = 40; i < 48; i++) offerOne(i);
  assertEquals(takeAll(oldest).length, 1);
  oldest.endWalk();
  assertEquals(takeAll(oldest).length, 42);
});

Deno.test("kept files are returned first by the next removal", () => {
  const oldest = new OldestFiles();
  offer(oldest, [1, 2, 3]);
  for (const file of oldest.take(2 * 4096)) oldest.keep(file);
  assertEquals(takeAll(oldest), [3]);
  oldest.putBack();
  assertEquals(takeAll(oldest), [1, 2]);
  oldest.putBack();
  assertEquals(takeAll(oldest), []);
});

Deno.test("a new walk forgets the last one", () => {
  const oldest = new OldestFiles();
  offer(oldest, [1, 2]);
  for (const file of oldest.take(1)) oldest.keep(file);
  oldest.startWalk();
  oldest.putBack();
  offer(oldest, [7]);
  assertEquals(takeAll(oldest), [7]);
});
