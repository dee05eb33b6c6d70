import { assertEquals } from "@std/assert";
import { CondemnedWrites } from "../../../src/l1/condemned_writes.ts";
import { L1Entry } from "../../../src/l1/l1_entry.ts";
import { testKey, testLayout } from "../../support/objects.ts";

const KEY = testKey(0);

function entryOf(writer: string, key = KEY): L1Entry {
  const buffer = new Uint8Array(256);
  const slab = { buffer, byteLength: 256, valid: Promise.resolve(true) };
  const range = { slab, buffer, byteOffset: 0, byteLength: 256, reservedBytes: 256, block: 0 };
  const options = { writer, isTemporary: false, lockExpiresAt: 10 };
  return new L1Entry(key, testLayout(256), range, options);
}

function finish(
  condemned: CondemnedWrites,
  writer: string,
  hasSuccessor = false,
): L1Entry[] | undefined {
  const freed = condemned.finish(KEY, writer, hasSuccessor);
  return freed === undefined ? undefined : [...freed];
}

Deno.test("CondemnedWrites.finish() frees what one writer wrote, and knows no other", () => {
  const condemned = new CondemnedWrites();
  assertEquals(finish(condemned, "a"), undefined);
  const entry = entryOf("a");
  condemned.add(entry);
  condemned.add(entryOf("a", testKey(1)));
  assertEquals(finish(condemned, "b"), undefined);
  assertEquals(finish(condemned, "a"), [entry]);
  assertEquals(finish(condemned, "a"), undefined);
  assertEquals([...condemned].length, 1);
});

Deno.test("CondemnedWrites waits for all writers that it cannot tell from each other", () => {
  const condemned = new CondemnedWrites();
  const entries = [entryOf("a"), entryOf("a")];
  for (const entry of entries) condemned.add(entry);
  assertEquals(finish(condemned, "a", true), []);
  assertEquals(finish(condemned, "a", true), []);
  assertEquals(finish(condemned, "a", true), entries);
  assertEquals([...condemned], []);
});

Deno.test("CondemnedWrites.remove() waits no longer, but for the others all the same", () => {
  const condemned = new CondemnedWrites();
  const [first, second] = [entryOf("a"), entryOf("a")];
  condemned.add(first);
  condemned.add(second);
  assertEquals(finish(condemned, "a"), []);
  condemned.remove(first);
  condemned.remove(first);
  assertEquals([...condemned], [second]);
  assertEquals(finish(condemned, "a", true), [], "the first may have been the one that finished");
  assertEquals(finish(condemned, "a", true), [second]);
  condemned.add(first);
  condemned.remove(first);
  assertEquals(finish(condemned, "a"), undefined);
});

Deno.test("CondemnedWrites takes no writer and key for another that read the same", () => {
  const condemned = new CondemnedWrites();
  condemned.add(entryOf("a", testKey(0, { model: "b" })));
  assertEquals(condemned.finish(testKey(0, { model: "ab" }), "", false), undefined);
});
