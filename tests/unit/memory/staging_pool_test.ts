import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { countThatFit, packObjects, StagingPool } from "../../../src/memory/staging_pool.ts";
import { runs } from "../../support/runs.ts";

const blockSizes = fc.constantFrom(64, 256, 1024, 1000, 4096);
/** Sizes below, at and above the size of a block. */
const objectSizes = fc.array(
  fc.oneof(
    fc.integer({ min: 1, max: 600 }),
    fc.integer({ min: 1, max: 10000 }),
    fc.constantFrom(63, 64, 65, 255, 256, 257, 999, 1000, 1001, 1023, 1024, 1025, 2048, 4096, 4097),
  ),
  { maxLength: 30, size: "max" },
);

interface TestBlock {
  readonly id: number;
  isDestroyed: boolean;
}

/** A pool of numbered blocks of 10 bytes, and all blocks that it ever made. */
function poolOf(blocks: number): { pool: StagingPool<TestBlock>; made: TestBlock[] } {
  const made: TestBlock[] = [];
  const pool = new StagingPool<TestBlock>({
    blockBytes: 10,
    capacityBytes: blocks * 10,
    create: () => {
      const block = { id: made.length, isDestroyed: false };
      made.push(block);
      return block;
    },
    destroy: (block) => {
      assert(!block.isDestroyed, "a block is destroyed once");
      block.isDestroyed = true;
    },
  });
  return { pool, made };
}

function liveBlocks(made: readonly TestBlock[]): number {
  return made.filter(({ isDestroyed }) => !isDestroyed).length;
}

/** Lets promise reactions run. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
}

Deno.test("packObjects() covers every object exactly, and no byte of a block twice", () => {
  fc.assert(
    fc.property(objectSizes, blockSizes, (sizes, blockBytes) => {
      const { objects, usedBytes } = packObjects(sizes, blockBytes);
      assertEquals(objects.map((parts) => parts.reduce((n, p) => n + p.byteLength, 0)), sizes);
      const ends = usedBytes.map(() => 0);
      for (const { block, byteOffset, byteLength } of objects.flat()) {
        // In order of the blocks' addresses: nothing overlaps what came before.
        assert(byteLength > 0);
        assert(byteOffset >= (ends[block] ?? Infinity), "overlap");
        ends[block] = byteOffset + byteLength;
        assert(byteOffset + byteLength <= blockBytes, "beyond the block");
      }
      assertEquals(ends, usedBytes);
    }),
    runs(500),
  );
});

Deno.test("packObjects() aligns objects and splits none that fits into a block", () => {
  fc.assert(
    fc.property(objectSizes, blockSizes, (sizes, blockBytes) => {
      for (const [i, parts] of packObjects(sizes, blockBytes).objects.entries()) {
        const size = sizes[i] ?? 0;
        assertEquals(parts.length, Math.ceil(size / blockBytes));
        assertEquals(parts.every(({ byteOffset }) => byteOffset % 64 === 0), true, "alignment");
        const whole = parts.slice(0, -1);
        assert(whole.every(({ byteLength }) => byteLength === blockBytes), "full blocks first");
      }
    }),
    runs(500),
  );
});

Deno.test("packObjects() shares blocks between small objects, also after a large one", () => {
  const { objects, usedBytes } = packObjects([100, 28, 2100, 100, 900], 1024);
  assertEquals(objects, [
    [{ block: 0, byteOffset: 0, byteLength: 100 }],
    [{ block: 0, byteOffset: 128, byteLength: 28 }],
    [
      { block: 1, byteOffset: 0, byteLength: 1024 },
      { block: 2, byteOffset: 0, byteLength: 1024 },
      { block: 3, byteOffset: 0, byteLength: 52 },
    ],
    [{ block: 3, byteOffset: 64, byteLength: 100 }],
    [{ block: 4, byteOffset: 0, byteLength: 900 }],
  ]);
  assertEquals(usedBytes, [156, 1024, 1024, 164, 900]);
});

Deno.test("packObjects() of nothing needs no block", () => {
  assertEquals(packObjects([], 1024), { objects: [], usedBytes: [] });
});

Deno.test("countThatFit() is the largest number of objects whose blocks fit", () => {
  fc.assert(
    fc.property(objectSizes, blockSizes, fc.nat(20), fc.nat(63), (sizes, blockBytes, n, more) => {
      const capacityBytes = n * blockBytes + more;
      const bytes = (count: number): number =>
        packObjects(sizes.slice(0, count), blockBytes).usedBytes.length * blockBytes;
      const count = countThatFit(sizes, blockBytes, capacityBytes);
      assert(bytes(count) <= capacityBytes, "they fit");
      if (count < sizes.length) assert(bytes(count + 1) > capacityBytes, "one more does not");
    }),
    runs(1000),
  );
});

Deno.test("StagingPool creates blocks on demand and reuses them", async () => {
  const { pool, made } = poolOf(3);
  const first = await pool.acquire(2);
  assertEquals([made.length, pool.lentBytes, pool.totalBytes], [2, 20, 20]);
  pool.release(first);
  assertEquals([made.length, pool.lentBytes, pool.totalBytes], [2, 0, 20]);
  const second = await pool.acquire(3);
  assertEquals(new Set(second), new Set(made));
  assertEquals([made.length, pool.lentBytes, pool.totalBytes], [3, 30, 30]);
});

Deno.test("StagingPool.acquire() serves whole requests in FIFO order", async () => {
  const { pool } = poolOf(4);
  const order: string[] = [];
  const ask = (name: string, count: number): Promise<TestBlock[]> => {
    const blocks = pool.acquire(count);
    blocks.then(() => order.push(name));
    return blocks;
  };
  const first = await ask("first", 3);
  const large = ask("large", 4);
  const small = ask("small", 1);
  await settle();
  assertEquals(order, ["first"], "a small request does not pass a large one that waits");
  pool.release(first.slice(0, 2));
  await settle();
  assertEquals(order, ["first"]);
  pool.release(first.slice(2));
  const blocks = await large;
  await settle();
  assertEquals(order, ["first", "large"]);
  pool.release(blocks);
  pool.release(await small);
  assertEquals(order, ["first", "large", "small"]);
  assertEquals(pool.lentBytes, 0);
});

Deno.test("StagingPool serves all pending requests that fit", async () => {
  const { pool } = poolOf(3);
  const all = await pool.acquire(3);
  const waiting = [pool.acquire(1), pool.acquire(2)];
  pool.release(all);
  assertEquals((await Promise.all(waiting)).map(({ length }) => length), [1, 2]);
});

Deno.test("StagingPool.acquire() of 0 blocks returns none", async () => {
  const { pool, made } = poolOf(1);
  const held = await pool.acquire(1);
  assertEquals(await pool.acquire(0), []);
  assertEquals([made.length, pool.lentBytes], [1, 10]);
  pool.release(held);
});

Deno.test("StagingPool.acquire() rejects requests above the capacity", async () => {
  const { pool, made } = poolOf(3);
  await assertRejects(() => pool.acquire(4), RangeError, "cannot hold 4 blocks");
  assertEquals(made.length, 0);
  assertEquals((await pool.acquire(3)).length, 3);
});

Deno.test("StagingPool rejects a capacity below one block", () => {
  const make = (capacityBytes: number) => () =>
    new StagingPool({ blockBytes: 10, capacityBytes, create: () => 0, destroy: () => {} });
  for (const capacityBytes of [9, 0, -1, NaN]) assertThrows(make(capacityBytes), RangeError);
  make(10)();
});

Deno.test("StagingPool.discard() destroys blocks and allows new ones", async () => {
  const { pool, made } = poolOf(2);
  const blocks = await pool.acquire(2);
  const waiting = pool.acquire(2);
  pool.discard(blocks.slice(0, 1));
  await settle();
  assertEquals(pool.lentBytes, 10);
  pool.release(blocks.slice(1));
  assertEquals((await waiting).length, 2);
  assertEquals(made.map(({ isDestroyed }) => isDestroyed), [true, false, false]);
});

Deno.test("a disposed StagingPool rejects pending requests and destroys lent blocks on return", async () => {
  const { pool, made } = poolOf(3);
  pool.release(await pool.acquire(3));
  const [first, second] = [await pool.acquire(1), await pool.acquire(1)];
  const waiting = assertRejects(() => pool.acquire(2), Error, "closed");
  pool[Symbol.dispose]();
  await waiting;
  assertEquals(liveBlocks(made), 2, "idle ones go at once");
  pool.release(first);
  assertEquals(liveBlocks(made), 1);
  pool.discard(second);
  assertEquals([liveBlocks(made), pool.totalBytes, pool.lentBytes], [0, 0, 0]);
  await assertRejects(() => pool.acquire(1), Error, "closed");
  assertEquals(made.length, 3);
});

Deno.test("StagingPool.close() rejects pending and later requests with its reason", async () => {
  const { pool, made } = poolOf(2);
  const lent = await pool.acquire(2);
  const reason = new RangeError("the reason");
  const waiting = [pool.acquire(1), pool.acquire(2)].map((blocks) =>
    assertRejects(() => blocks, RangeError, "the reason")
  );
  pool.close(reason);
  await Promise.all(waiting);
  await assertRejects(() => pool.acquire(1), RangeError, "the reason");
  pool[Symbol.dispose]();
  await assertRejects(() => pool.acquire(1), RangeError, "the reason");
  pool.release(lent);
  assertEquals([liveBlocks(made), pool.totalBytes], [0, 0]);
});

Deno.test("StagingPool.peakBytes is the maximum lent at a time", async () => {
  const { pool } = poolOf(4);
  assertEquals(pool.peakBytes, 0);
  const [first, second] = [await pool.acquire(1), await pool.acquire(2)];
  pool.release(first);
  assertEquals(pool.peakBytes, 30);
  pool.discard(second);
  pool.release(await pool.acquire(2));
  assertEquals([pool.peakBytes, pool.lentBytes], [30, 0]);
  const all = await pool.acquire(4);
  assertEquals(pool.peakBytes, 40);
  pool.release(all);
});

Deno.test("StagingPool stays within its capacity and lends no block twice", async () => {
  const steps = fc.array(
    fc.oneof(
      fc.record({ kind: fc.constant("acquire" as const), count: fc.nat(5) }),
      fc.record({ kind: fc.constantFrom("release" as const, "discard" as const), index: fc.nat() }),
    ),
    { maxLength: 60, size: "max" },
  );
  await fc.assert(
    fc.asyncProperty(steps, async (calls) => {
      const { pool, made } = poolOf(5);
      const lent: TestBlock[][] = [];
      const asked: number[] = [];
      const served: number[] = [];
      let peak = 0;
      for (const call of calls) {
        if (call.kind === "acquire") {
          asked.push(call.count);
          pool.acquire(call.count).then((blocks) => {
            served.push(blocks.length);
            lent.push(blocks);
          });
        } else {
          const [blocks] = lent.splice(call.index % Math.max(1, lent.length), 1);
          if (blocks !== undefined) pool[call.kind](blocks);
        }
        await settle();
        const out = lent.flat();
        assertEquals(new Set(out).size, out.length, "no block is lent twice");
        assert(out.every(({ isDestroyed }) => !isDestroyed));
        assertEquals(pool.lentBytes, out.length * 10);
        peak = Math.max(peak, pool.lentBytes);
        assert(pool.peakBytes >= peak && pool.peakBytes <= pool.capacityBytes);
        assertEquals(pool.totalBytes, liveBlocks(made) * 10);
        assert(pool.totalBytes <= pool.capacityBytes);
        assertEquals(served, asked.slice(0, served.length), "in turn, as many as asked");
      }
      while (lent.length > 0) {
        pool.release(lent.pop() ?? []);
        await settle();
      }
      assertEquals(served, asked, "everyone is served in the end");
      assertEquals(pool.lentBytes, 0);
      pool[Symbol.dispose]();
      assertEquals(liveBlocks(made), 0);
    }),
    runs(200),
  );
});

Deno.test("StagingPool rejects a request when a block cannot be created, and keeps its capacity", async () => {
  let isRefused = true;
  let made = 0;
  const pool = new StagingPool<number>({
    blockBytes: 10,
    capacityBytes: 30,
    create: () => {
      if (isRefused && made === 1) throw new RangeError("Array buffer allocation failed");
      return made++;
    },
    destroy: () => {},
  });
  await assertRejects(() => pool.acquire(3), RangeError, "allocation failed");
  assertEquals([pool.lentBytes, pool.peakBytes, pool.totalBytes], [0, 0, 10]);
  isRefused = false;
  assertEquals((await pool.acquire(3)).length, 3, "none of its room is lost");
  assertEquals(made, 3, "what could be made is used");
});
