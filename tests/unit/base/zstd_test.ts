import { assert, assertEquals, assertRejects } from "@std/assert";
import { ZstdThreads } from "../../../src/base/zstd.ts";

const zeros = (length: number): Uint8Array<ArrayBuffer> => new Uint8Array(length);

Deno.test("zstd: bytes round-trip; input buffers are detached", async () => {
  using threads = new ZstdThreads(2);
  const bytes = zeros(100_000).map((_, i) => i % 7);
  const given = bytes.slice();
  const small = await threads.compress(given, 3);
  assertEquals(given.byteLength, 0);
  assert(small.byteLength < 1000);
  assertEquals(await threads.decompress(small, bytes.byteLength), bytes);
  assertEquals(threads.pending, 0);
});

Deno.test("zstd: calls of several threads are not mixed up", async () => {
  using threads = new ZstdThreads(3);
  const sizes = Array.from({ length: 30 }, (_, n) => 1 + n * 997);
  await Promise.all(sizes.map(async (size) => {
    const small = await threads.compress(zeros(size).fill(size & 255), 1);
    assertEquals(await threads.decompress(small, size), zeros(size).fill(size & 255));
  }));
});

Deno.test("zstd: invalid, truncated and oversized frames are undefined", async () => {
  using threads = new ZstdThreads(1);
  const small = await threads.compress(zeros(5000).map((_, i) => i), 1);
  assertEquals(await threads.decompress(zeros(10).fill(9), 100), undefined);
  assertEquals(await threads.decompress(small.slice(0, 20), 5000), undefined);
  assertEquals(await threads.decompress(small.slice(), 4999), undefined);
  assertEquals((await threads.decompress(small, 5000))?.byteLength, 5000, "it still works");
});

Deno.test("zstd: closing rejects calls in progress and later ones", async () => {
  const threads = new ZstdThreads(2);
  const calls = [1, 2, 3].map(() => threads.compress(zeros(4 * 2 ** 20), 19));
  const failures = calls.map((call) => assertRejects(() => call, Error, "Closed"));
  threads[Symbol.dispose]();
  await Promise.all(failures);
  await assertRejects(() => threads.compress(zeros(1), 1), Error, "Closed");
  threads[Symbol.dispose]();
});

Deno.test("zstd: the main thread is not blocked", async () => {
  using threads = new ZstdThreads(1);
  let isDone = false;
  const work = threads.compress(crypto.getRandomValues(zeros(65_536)), 22).then(async () => {
    for (let n = 0; n < 20; n++) await threads.compress(zeros(4 * 2 ** 20), 12);
    isDone = true;
  });
  let ticks = 0;
  while (!isDone) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    ticks++;
  }
  await work;
  // One for each call at least; if the calls blocked, there would be none between them.
  assert(ticks > 10, `${ticks} turns of the event loop`);
});
