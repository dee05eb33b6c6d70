import { assertEquals } from "@std/assert";
import { ObjectIndex } from "../../../../adapters/_shared/object_book.ts";
import type { ObjectKey } from "../../../../src/keys/object_key.ts";
import { testKeys } from "../../../support/objects.ts";

Deno.test("a future time counts as now, and an invalid size as 0 bytes", () => {
  const book = new ObjectIndex();
  const [future, past, odd] = testKeys(3) as [ObjectKey, ObjectKey, ObjectKey];
  book.put(future, 10, Date.now() + 1e12);
  book.put(past, 20, 1);
  book.put(odd, NaN, NaN);
  for (const bytes of [-1, Infinity, 1.5]) book.put(odd, bytes);
  assertEquals(book.usedBytes, 30);
  const entry = book.get(past);
  if (entry !== undefined) book.see(entry, Date.now() + 1e12);
  const until = Date.now();
  for (const { usedAt } of book.oldestFirst()) assertEquals(usedAt <= until, true);
});
