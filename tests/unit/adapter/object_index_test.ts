import { assertEquals } from "@std/assert";
import { ObjectIndex } from "../../../src/adapter/object_index.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { evictionPolicy } from "../../../src/policies/eviction_policy.ts";
import { testKeys } from "../../support/objects.ts";

Deno.test("a future time counts as now, and an invalid size as 0 bytes", () => {
  const index = new ObjectIndex(evictionPolicy("LRU"));
  const [future, past, odd] = testKeys(3) as [ObjectKey, ObjectKey, ObjectKey];
  index.put(future, 10, Date.now() + 1e12);
  index.put(past, 20, 1);
  index.put(odd, NaN, NaN);
  for (const bytes of [-1, Infinity, 1.5]) index.put(odd, bytes);
  assertEquals(index.usedBytes, 30);
  const entry = index.get(past.id);
  if (entry !== undefined) index.see(entry, Date.now() + 1e12);
  const until = Date.now();
  for (const { timeOfUse } of index) assertEquals(timeOfUse <= until, true);
});
