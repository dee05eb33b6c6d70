import { assert, assertEquals, assertGreater } from "@std/assert";
import { objectOf, type Sample, sample, sampleKey, samples } from "./samples.ts";
import { bits, call, type Subject, type SubjectCase, turns } from "./subject.ts";

const CAPACITY_BYTES = 4 * 2 ** 20;
const OBJECT_BYTES = 60_000;
const BATCH = 8;
/** Number of batches that exceed the capacity together. */
const BATCHES = Math.ceil(1.5 * CAPACITY_BYTES / (BATCH * OBJECT_BYTES));

/** Stores batches of new objects beyond the capacity and returns the accepted objects. */
async function overfill(
  subject: Subject,
  beforeEach: () => void | Promise<void> = () => {},
): Promise<Sample[]> {
  const taken: Sample[] = [];
  for (let n = 0; n < BATCHES; n++) {
    await beforeEach();
    const batch = Array.from(
      { length: BATCH },
      (_, i) => sample(1000 + n * BATCH + i, OBJECT_BYTES),
    );
    const { stored } = await subject.adapter.store(batch.map(objectOf), call());
    taken.push(...stored.gather(batch));
  }
  return taken;
}

/** Cases about the choice of evicted objects and their reporting. */
export const recencyCases: readonly SubjectCase[] = [
  {
    name: "evicts unused objects before objects that are looked up and loaded",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const used = samples(BATCH, OBJECT_BYTES);
      const keys = used.map(({ key }) => key);
      await subject.store(used);
      await overfill(subject, async () => {
        const all = "1".repeat(BATCH);
        assertEquals(await subject.lookup(keys, true), all, "recently used objects");
        await subject.assertStored(used);
      });
    },
  },
  {
    name: "evicts untouched objects before touched ones, if the adapter has touch",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const { adapter } = subject;
      if (adapter.touch === undefined) return;
      const used = samples(BATCH, OBJECT_BYTES);
      const keys = used.map(({ key }) => key);
      await subject.store(used);
      await overfill(subject, async () => {
        adapter.touch?.(keys);
        await turns();
      });
      await subject.assertStored(used);
    },
  },
  {
    name: "reports exactly the evicted objects, if it reports any",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const { adapter, evicted } = subject;
      const given = samples(BATCH, OBJECT_BYTES);
      await subject.store(given);
      // Removals and replacements by the caller are not evictions.
      await subject.store(given.slice(1));
      const first = given.slice(0, 1).map(({ key }) => key);
      const removal = await adapter.delete?.(first, call());
      await turns();
      assertEquals([...evicted], [], "evictions below the capacity");
      const all = [...given.slice(removal === undefined ? 0 : 1), ...await overfill(subject)];
      await turns();
      if (evicted.size === 0) return;
      const keys = all.map(({ key }) => key);
      const found = await subject.lookup(keys);
      assertGreater(found.replaceAll("1", "").length, 0, "evicted objects");
      await turns();
      const reported = keys.map(({ id }) => evicted.has(id) ? "0" : "1").join("");
      assertEquals(reported, found, "objects present according to the reported evictions");
      const known = new Set(keys.map(({ id }) => id));
      assertEquals(
        [...evicted].filter((id) => !known.has(id)),
        [],
        "reported objects that were never stored",
      );
    },
  },
];

/** Cases about `touch`; each passes if the adapter does not have it. */
export const touchCases: readonly SubjectCase[] = [
  {
    name: "touch has no other effect and ignores missing objects",
    async check(subject) {
      const { adapter } = subject;
      if (adapter.touch === undefined) return;
      const given = samples(3);
      const [first] = given;
      assert(first !== undefined);
      adapter.touch([]);
      adapter.touch([sampleKey(7), first.key]);
      await turns();
      assertEquals(
        await subject.lookup([sampleKey(7), first.key]),
        "00",
        "objects that were never stored",
      );
      await subject.store(given);
      adapter.touch([sampleKey(7), ...given.map(({ key }) => key), first.key]);
      await turns();
      await subject.assertStored(given);
      const removal = await adapter.delete?.([first.key], call());
      if (removal !== undefined) {
        assertEquals(bits(removal.deleted), "1", "touch does not lock");
        adapter.touch([first.key]);
        await turns();
        assertEquals(await subject.load(first), null, "touch does not restore a removed object");
      }
      await subject[Symbol.asyncDispose]();
      adapter.touch(given.map(({ key }) => key));
      await turns();
      assertEquals(subject.errors, []);
    },
  },
];
