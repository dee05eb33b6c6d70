import { assertEquals, assertRejects } from "@std/assert";
import { type CallPurpose, OsCallPool, OsCalls } from "../../../../adapters/_shared/os_calls.ts";

const PURPOSES: readonly CallPurpose[] = ["lookup", "load", "store", "housekeeping"];

/** Starts many calls that never return, for all purposes. */
function hang(calls: OsCalls, signal: AbortSignal): Promise<void>[] {
  const forEver = new Promise<void>(() => {});
  return PURPOSES.flatMap((purpose) =>
    Array.from({ length: 50 }, () => calls.run(purpose, signal, () => forEver))
  );
}

Deno.test("adapters with hanging calls leave threads for others, and their callers give up", async () => {
  const pool = new OsCallPool();
  const [one, two, healthy] = [new OsCalls(pool), new OsCalls(pool), new OsCalls(pool)];
  const giveUp = new AbortController();
  const hung = [one, two].flatMap((calls) => hang(calls, giveUp.signal));
  assertEquals([one.running, two.running, pool.running], [10, 10, 20]);
  for (const purpose of PURPOSES) {
    const answers = Array.from(
      { length: 30 },
      (_, i) => healthy.run(purpose, undefined, () => Promise.resolve(i)),
    );
    assertEquals((await Promise.all(answers)).length, 30);
  }
  giveUp.abort(new Error("given up"));
  const settled = await Promise.all(
    hung.map((call) => Promise.race([call.then(() => "done", () => "given up"), soon()])),
  );
  assertEquals(settled.filter((end) => end === "given up").length, hung.length - 20);
  assertEquals([pool.waiting, pool.running, healthy.running], [0, 20, 0]);
});

Deno.test("one purpose leaves threads for others, and a failed call releases its thread", async () => {
  const pool = new OsCallPool();
  const calls = new OsCalls(pool);
  const forEver = new Promise<void>(() => {});
  for (let i = 0; i < 20; i++) void calls.run("store", undefined, () => forEver);
  assertEquals(calls.running, 6);
  for (let i = 0; i < 20; i++) {
    await assertRejects(() => calls.run("load", undefined, () => Promise.reject(new Error("EIO"))));
  }
  assertEquals(calls.running, 6);
});

async function soon(): Promise<string> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
  return "hangs";
}
