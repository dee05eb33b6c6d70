import { assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { LruList, type LruPlace } from "../../../src/base/lru_list.ts";

Deno.test("LruList: the least recently used item comes first, whatever was renewed and removed", () => {
  const step = fc.record({
    action: fc.constantFrom("add", "renew", "remove"),
    n: fc.nat(9),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const order = new LruList<number>();
    const places: LruPlace<number>[] = [];
    let model: number[] = [];
    for (const { action, n } of steps) {
      const place = places[n];
      if (action === "add") {
        places.push(order.add(places.length));
        model.push(places.length - 1);
      } else if (place !== undefined && action === "remove") {
        order.remove(place);
        model = model.filter((item) => item !== place.item);
      } else if (place !== undefined) {
        order.renew(place);
        if (!model.includes(place.item)) continue;
        model = [...model.filter((item) => item !== place.item), place.item];
      }
      assertEquals([...order], model);
      assertEquals(order.oldest, model[0]);
    }
  }));
});

Deno.test("LruList: items may be removed while they are visited", () => {
  const order = new LruList<number>();
  const places = [0, 1, 2, 3].map((item) => order.add(item));
  const seen: number[] = [];
  for (const item of order) {
    seen.push(item);
    if (item === 1) { for (const place of places.slice(0, 3)) order.remove(place); }
  }
  assertEquals(seen, [0, 1, 3]);
});
