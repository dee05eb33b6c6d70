import { assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { type Queued, RankQueue } from "../../../src/policies/rank_queue.ts";
import { runs } from "../../support/runs.ts";

class Item implements Queued {
  queues = 0;
  belongs = true;
  constructor(public rank: number) {}
}

function queue(bit = 1): RankQueue<Item> {
  return new RankQueue({ bit, rankOf: ({ rank }) => rank, belongs: ({ belongs }) => belongs });
}

/** Takes out one item after the other, and puts back those that still belong. */
function* inOrder(queue: RankQueue<Item>): Generator<Item> {
  const passed: Item[] = [];
  try {
    for (let item = queue.first(); item !== undefined; item = queue.first()) {
      queue.takeFirst();
      passed.push(item);
      yield item;
    }
  } finally {
    for (const item of passed) queue.putBack(item);
  }
}

function ranks(items: Iterable<Item>): number[] {
  return [...items].map(({ rank }) => rank);
}

Deno.test("RankQueue always returns the lowest rank first", () => {
  const ranked = queue();
  for (const rank of [5, 1, 4, 2, 3]) ranked.add(new Item(rank));
  assertEquals(ranked.first()?.rank, 1);
  assertEquals(ranks(inOrder(ranked)), [1, 2, 3, 4, 5]);
  for (const { rank } of inOrder(ranked)) if (rank === 2) break;
  assertEquals(ranks(inOrder(ranked)), [1, 2, 3, 4, 5], "after a look at the front of it");
});

Deno.test("RankQueue notices grown ranks and items that no longer belong", () => {
  const ranked = queue();
  const items = [1, 2, 3, 4].map((rank) => new Item(rank));
  for (const item of items) ranked.add(item);
  (items[0] as Item).rank = 9;
  (items[1] as Item).belongs = false;
  assertEquals(ranks(inOrder(ranked)), [3, 4, 9]);
  assertEquals(items.map(({ queues }) => queues), [1, 0, 1, 1]);
  (items[1] as Item).belongs = true;
  ranked.add(items[1] as Item);
  ranked.add(items[1] as Item);
  assertEquals(ranks(inOrder(ranked)), [2, 3, 4, 9]);
});

Deno.test("RankQueue allows items to be removed during iteration", () => {
  const ranked = queue();
  for (const rank of [1, 2, 3, 4]) ranked.add(new Item(rank));
  const seen: number[] = [];
  for (const item of inOrder(ranked)) {
    seen.push(item.rank);
    item.belongs = item.rank % 2 === 0;
  }
  assertEquals([seen, ranks(inOrder(ranked))], [[1, 2, 3, 4], [2, 4]]);
});

Deno.test("an item can be in several queues", () => {
  const [one, two] = [queue(1), queue(2)];
  const item = new Item(1);
  one.add(item);
  two.add(item);
  assertEquals([one.first(), two.first(), item.queues], [item, item, 3]);
});

Deno.test("RankQueue drops items that no longer belong, even if it is never read", () => {
  const ranked = queue();
  const gone: Item[] = [];
  for (let rank = 0; rank < 1_000; rank++) {
    const item = new Item(1_000 - rank);
    ranked.add(item);
    item.belongs = false;
    gone.push(item);
  }
  const kept = gone.filter(({ queues }) => queues !== 0).length;
  assertEquals(kept <= 65, true, `${kept} are kept`);
});

Deno.test("RankQueue does not visit items that are not evictable or were used since", () => {
  let looks = 0;
  const ranked = new RankQueue<Item>({
    bit: 1,
    rankOf: ({ rank }) => rank,
    belongs: ({ belongs }) => {
      looks++;
      return belongs;
    },
  });
  const items = Array.from({ length: 1_000 }, (_, rank) => new Item(rank));
  for (const item of items) ranked.add(item);
  for (const item of items.slice(0, 990)) item.belongs = false;
  for (let n = 0; n < 1_000; n++) assertEquals(ranked.first()?.rank, 990);
  assertEquals(looks < 4_000, true, `${looks} looks at 1,000 items in 1,000 calls`);
});

Deno.test("RankQueue behaves like a sorted list under random changes", () => {
  const change = fc.record({
    what: fc.constantFrom("add", "grow", "leave", "return", "look"),
    nth: fc.nat(20),
    by: fc.integer({ min: 1, max: 50 }),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 200, size: "max" }), (changes) => {
      const ranked = queue();
      const items: Item[] = [];
      for (const { what, nth, by } of changes) {
        const item = items[nth % Math.max(1, items.length)];
        if (what === "add") {
          items.push(new Item(by));
          ranked.add(items.at(-1) as Item);
        } else if (item !== undefined && what === "grow") item.rank += by;
        else if (item !== undefined && what === "leave") item.belongs = false;
        else if (item !== undefined && what === "return") {
          item.belongs = true;
          ranked.add(item);
        } else {
          const expected = ranks(items.filter(({ belongs }) => belongs)).sort((a, b) => a - b);
          assertEquals(ranks(inOrder(ranked)), expected);
        }
      }
    }),
    runs(500),
  );
});
