import { assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { LruMap } from "../../../src/base/lru_map.ts";

interface Item {
  readonly id: string;
  readonly value: number;
}

Deno.test("LruMap: like a list of at most so many items, whatever is put, renewed and deleted", () => {
  const step = fc.record({
    action: fc.constantFrom("put", "renew", "delete"),
    id: fc.constantFrom(..."abcdefg"),
    value: fc.nat(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const map = new LruMap<Item>(({ id }) => id, 4);
      let model: Item[] = [];
      for (const { action, id, value } of steps) {
        const present = model.find((item) => item.id === id);
        const others = model.filter((item) => item !== present);
        if (action === "put") {
          map.put({ id, value });
          model = [...others, { id, value }].slice(-4);
        } else if (action === "renew") {
          assertEquals(map.renew(id), present !== undefined);
          if (present !== undefined) model = [...others, present];
        } else {
          assertEquals(map.delete(id), present !== undefined);
          model = others;
        }
        assertEquals([...map], model);
        assertEquals(map.size, model.length);
        assertEquals(map.get(id), model.find((item) => item.id === id));
        assertEquals(map.has(id), model.some((item) => item.id === id));
      }
    }),
    { seed: 1 },
  );
});

Deno.test("LruMap: items may be removed while they are visited", () => {
  const map = new LruMap<string>((id) => id);
  for (const id of "abcd") map.put(id);
  const seen: string[] = [];
  for (const id of map) {
    seen.push(id);
    if (id === "b") { for (const gone of "abc") map.delete(gone); }
  }
  assertEquals(seen, ["a", "b", "d"]);
});

Deno.test("LruMap: get() and has() are no uses", () => {
  const map = new LruMap<string>((id) => id, 2);
  map.put("a");
  map.put("b");
  map.get("a");
  map.has("a");
  map.put("c");
  assertEquals([...map], ["b", "c"]);
});
