import { assertEquals, assertNotEquals } from "@std/assert";
import { runs } from "../support/runs.ts";
import { type SimReport, simulate } from "./simulate.ts";

// deno task test:sim [--seed S] [--runs N] [--requests R]

const PARTS = 4;
/** Number of days after which every simulated event has occurred. */
const ENOUGH_DAYS = 40;
/**
 * The same days each time, so that a failure comes from the change under test; other days on
 * demand.
 */
const { seed = 30_100 } = runs(1);
const { numRuns } = runs(isSeedGiven() ? 1 : ENOUGH_DAYS);
const requests = requestsOf(Deno.args);
const days: SimReport[] = [];

function isSeedGiven(): boolean {
  return runs(1).seed !== undefined;
}

function requestsOf(args: readonly string[]): { requests?: number } {
  const index = args.indexOf("--requests");
  if (index < 0) return {};
  const count = Number(args[index + 1]);
  if (Number.isSafeInteger(count) && count > 0) return { requests: count };
  throw new RangeError(`requests must be an integer of at least 1: received ${args[index + 1]}`);
}

for (let part = 0; part < Math.min(PARTS, numRuns); part++) {
  Deno.test(`TieredCache keeps its promises through simulated days, part ${part + 1}`, async () => {
    for (let day = part; day < numRuns; day += PARTS) {
      days.push(await simulate({ seed: seed + day, ...requests }));
    }
  });
}

Deno.test("simulate() lives through the same day again with the same seed", async () => {
  const { digest, counts } = await simulate({ seed });
  const again = await simulate({ seed });
  assertEquals(again.counts, counts, `seed ${seed}`);
  assertEquals(again.digest, digest, `seed ${seed}`);
  assertNotEquals((await simulate({ seed: seed + 1, requests: 10 })).digest, digest);
});

Deno.test("simulate() makes everything happen", { ignore: numRuns < ENOUGH_DAYS }, () => {
  const happened = new Set(days.flatMap(({ counts }) => Object.keys(counts)));
  const lacking = [
    ...["slow", "rejecting", "hanging", "flaky", "corrupting", "losing", "lying", "full"]
      .map((fault) => `fault ${fault}`),
    ...["nonsense", "healthy"].map((fault) => `fault ${fault}`),
    ...["flipped", "swapped", "stale", "truncated", "at rest"].map((how) => `spoiled ${how}`),
    ...["magic", "key", "layout", "payload-checksum", "trailer-checksum"]
      .map((fault) => `damaged ${fault}`),
    ...["atOnce", "late", "uploadsLate", "cancelled", "given up"].map((how) => `put ${how}`),
    ...["success", "already-present", "device-lost", "out-of-memory", "quota-exceeded"]
      .map((status) => `reserved ${status}`),
    ...["evicted", "deleted", "temporary", "device-lost", "forgotten", "released"]
      .map((reason) => `event removed ${reason}`),
    ...["drain", "migrate", "drop"].map((mode) => `removed ${mode}`),
    ...["stored", "loaded", "deleted", "dropped", "deadline", "deviceattached"]
      .map((type) => `event ${type}`),
    ...["miss", "partial hit", "full hit", "match aborted", "warm"],
    ...["hit expired", "hit on a lost device", "not removed", "restart", "forgotten", "ttl"],
    ...["sim_server hangs for ever", "sim_tape store"],
  ].filter((event) => !happened.has(event));
  assertEquals(lacking, []);
});
