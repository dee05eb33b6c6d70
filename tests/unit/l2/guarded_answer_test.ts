import { assertEquals } from "@std/assert";
import { Bitmap } from "../../../src/adapter/contract.ts";
import { removeObjects } from "../../../src/eviction/remove_objects.ts";
import type { GuardedAnswer } from "../../../src/l2/guarded_answer.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";
import { bound, empty, guardOf, hang, keys, layout, prefix, sealed, TIMEOUTS } from "./guarded.ts";

/** Outcomes of the three keys, or of those that `n` names. */
function outcomesOf(answer: GuardedAnswer, n: readonly number[] = [0, 1, 2]): string[] {
  return n.map((i) => answer.outcomeOf(i));
}

Deno.test("an answer tells what was found from what the adapter lacks", async () => {
  const adapter = new RecordingAdapter();
  adapter.seed(keys.slice(0, 2), layout);
  const { guard } = guardOf(bound(adapter));
  const found = await guard.lookup(keys, { prefix: false });
  assertEquals([found.status, ...outcomesOf(found)], ["answered", "done", "done", "absent"]);
  const loaded = await guard.load(empty());
  assertEquals(outcomesOf(loaded), ["done", "done", "absent"]);
  const deleted = await guard.delete(keys);
  assertEquals([deleted.bytes, ...outcomesOf(deleted)], [640, "done", "done", "absent"]);
});

Deno.test("a load tells damaged objects, and their faults, from missing ones", async () => {
  const adapter = new RecordingAdapter();
  adapter.seed(keys.slice(0, 2), layout);
  adapter.held.get(keys[1]?.id ?? "")?.fill(1, 7, 8);
  const { guard } = guardOf(bound(adapter));
  const loaded = await guard.load(empty());
  assertEquals(outcomesOf(loaded), ["done", "damaged", "absent"]);
  assertEquals([...loaded.faults], [[1, "payload-checksum"]]);
});

Deno.test("a store tells what the adapter took", async () => {
  const stored = Bitmap.of(3, [1]);
  const { guard } = guardOf({ store: () => Promise.resolve({ stored, bytes: 320 }) });
  assertEquals(outcomesOf(await guard.store(sealed)), ["absent", "done", "absent"]);
});

Deno.test("a call that failed, missed its deadline, or was skipped says so for every object", async () => {
  const fail = () => Promise.reject(new Error("down"));
  const { guard, clock } = guardOf({ lookupAndLock: fail, load: hang });
  for (let i = 0; i < 3; i++) {
    assertEquals(outcomesOf(await guard.lookup(keys, prefix)), ["failed", "failed", "failed"]);
  }
  assertEquals((await guard.lookup(keys, prefix)).outcomeOf(0), "skipped", "its circuit is open");
  const loading = guard.load(empty());
  await clock.advance(TIMEOUTS.loadMs);
  assertEquals((await loading).outcomeOf(2), "timed-out");
  await guard.close();
  assertEquals((await guard.delete(keys)).outcomeOf(0), "skipped", "it is closed");
});

Deno.test("a lookup whose caller leaves is neither failed nor absent", async () => {
  const { guard } = guardOf({ lookupAndLock: hang });
  const caller = new AbortController();
  const options = { prefix: true, signal: caller.signal };
  const looking = guard.lookup(keys, options);
  caller.abort();
  assertEquals((await looking).status, "abandoned");
  assertEquals((await guard.lookup(keys, options)).status, "abandoned", "before it starts");
  await guard.close();
});

Deno.test("a removal is certain although another call fails at the same time", async () => {
  const adapter = new RecordingAdapter();
  adapter.seed(keys.slice(0, 2), layout);
  adapter.beforeStore = () => Promise.reject(new Error("full"));
  const { guard } = guardOf(bound(adapter));
  adapter.beforeDelete = async () => void await guard.store(sealed);
  const { objects, absent, unknown } = await removeObjects(guard, keys);
  assertEquals([objects, absent, unknown], [2, keys.slice(2), []]);
});
