import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import * as fc from "../../../support/fast_check.ts";
import { findChainEnd } from "../../../../adapters/_shared/chain_search.ts";
import { runs } from "../../../support/runs.ts";

/** Searches a chain; returns the probed positions and the number of rounds. */
async function search(
  length: number,
  isPresent: (place: number) => boolean,
  suspects?: readonly number[],
): Promise<{ end: number; asked: number[]; rounds: number }> {
  const asked: number[] = [];
  let rounds = 0;
  const end = await findChainEnd(length, (places) => {
    rounds++;
    asked.push(...places);
    return Promise.resolve(places.map(isPresent));
  }, suspects);
  return { end, asked, rounds };
}

Deno.test("the end of a chain is found wherever it is, at every length up to 300", async () => {
  for (let length = 0; length <= 300; length++) {
    const step = length < 70 ? 1 : 7;
    for (let present = 0; present <= length; present += step) {
      const { end } = await search(length, (place) => place < present);
      assertEquals(end, present, `${present} of ${length}`);
    }
  }
});

Deno.test("the end of a chain is found with few probes, none of them repeated", async () => {
  const chain = fc.nat(5000).chain((length) => fc.tuple(fc.constant(length), fc.nat(length)));
  await fc.assert(
    fc.asyncProperty(chain, async ([length, present]) => {
      const { end, asked, rounds } = await search(length, (place) => place < present);
      assertEquals(end, present);
      assertEquals(new Set(asked).size, asked.length, "asked twice");
      assert(asked.every((place) => place >= 0 && place < length), "outside of the chain");
      assertLessOrEqual(asked.length, length <= 1000 ? 40 : 49);
      assertLessOrEqual(rounds, 6);
    }),
    runs(1000),
  );
});

Deno.test("a complete or entirely missing chain takes one round", async () => {
  for (const length of [1, 16, 17, 1000, 100_000]) {
    for (const present of [0, length]) {
      const { end, asked, rounds } = await search(length, () => present > 0);
      assertEquals([end, rounds <= (present === 0 ? 1 : 6)], [present, true]);
      assertLessOrEqual(asked.length, length <= 16 ? length : 49);
    }
  }
});

Deno.test("a short chain is probed completely in one round, so each gap is found", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.boolean(), { maxLength: 16 }), async (there) => {
      const { end, asked, rounds } = await search(there.length, (place) => there[place] === true);
      assertEquals(end, there.includes(false) ? there.indexOf(false) : there.length);
      assertEquals([asked.length, rounds], [there.length, there.length === 0 ? 0 : 1]);
    }),
    runs(300),
  );
});

Deno.test("a gap at a suspect place is always found", async () => {
  const chain = fc.integer({ min: 17, max: 2000 }).chain((length) => {
    const places = fc.uniqueArray(fc.nat(length - 1), { maxLength: 20 });
    return fc.tuple(fc.constant(length), fc.nat(length), places, places);
  });
  await fc.assert(
    fc.asyncProperty(chain, async ([length, present, gaps, others]) => {
      const isPresent = (place: number) => place < present && !gaps.includes(place);
      const suspects = [...new Set([...gaps, ...others])];
      const { end, asked } = await search(length, isPresent, suspects);
      assertEquals(end, Math.min(present, ...gaps.filter((gap) => gap < present)));
      assertEquals(new Set(asked).size, asked.length, "asked twice");
    }),
    runs(500),
  );
});

Deno.test("with an unsuspected gap, the end found is before or after it, never beyond the chain", async () => {
  const chain = fc.array(fc.boolean(), { minLength: 17, maxLength: 300 });
  await fc.assert(
    fc.asyncProperty(chain, async (there) => {
      const { end } = await search(there.length, (place) => there[place] === true);
      // In any case, the position before the end was probed and present, and the end was not.
      assert(end === 0 || there[end - 1] === true);
      assert(end === there.length || there[end] === false);
    }),
    runs(500),
  );
});
