import { assert, assertEquals, assertGreater } from "@std/assert";
import { objectOf, type Sample, sample, sampleKey, samples } from "./samples.ts";
import { bits, call, type Subject, type SubjectCase, turns } from "./subject.ts";

const CAPACITY_BYTES = 4 * 2 ** 20;
const OBJECT_BYTES = 60_000;
const BATCH = 8;
/** Batches that, stored one after the other, need more room than there is. */
const BATCHES = Math.ceil(1.5 * CAPACITY_BYTES / (BATCH * OBJECT_BYTES));

/** Stores batches of young objects, more than there is room for; those that were taken. */
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

/** What leaves an adapter that bounds itself, and who is told. */
export const recencyCases: readonly SubjectCase[] = [
  {
    name: "what is looked up and loaded outlives what is not",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const used = samples(BATCH, OBJECT_BYTES);
      const keys = used.map(({ key }) => key);
      await subject.store(used);
      await overfill(subject, async () => {
        const held = "1".repeat(BATCH);
        assertEquals(await subject.lookup(keys, true), held, "what was used last");
        await subject.assertHeld(used);
      });
    },
  },
  {
    name: "what is touched outlives what is not, where the adapter has touch",
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
      await subject.assertHeld(used);
    },
  },
  {
    name: "tells which objects it evicts, those and no others, if it tells of any",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const { adapter, evicted } = subject;
      const given = samples(BATCH, OBJECT_BYTES);
      await subject.store(given);
      // What the caller removes or replaces is not evicted.
      await subject.store(given.slice(1));
      const first = given.slice(0, 1).map(({ key }) => key);
      const removal = await adapter.delete?.(first, call());
      await turns();
      assertEquals([...evicted], [], "nothing is evicted while there is room");
      const all = [...given.slice(removal === undefined ? 0 : 1), ...await overfill(subject)];
      await turns();
      if (evicted.size === 0) return;
      const keys = all.map(({ key }) => key);
      const found = await subject.lookup(keys);
      assertGreater(found.replaceAll("1", "").length, 0, "objects that left");
      await turns();
      const told = keys.map(({ id }) => evicted.has(id) ? "0" : "1").join("");
      assertEquals(told, found, "objects that are there, going by what was told");
      const known = new Set(keys.map(({ id }) => id));
      assertEquals([...evicted].filter((id) => !known.has(id)), [], "objects that were not there");
    },
  },
];

/** `touch` where there is one. */
export const touchCases: readonly SubjectCase[] = [
  {
    name: "touch changes nothing else, and ignores what is not there",
    async check(subject) {
      const { adapter } = subject;
      if (adapter.touch === undefined) return;
      const given = samples(3);
      const [first] = given;
      assert(first !== undefined);
      adapter.touch([]);
      adapter.touch([sampleKey(7), first.key]);
      await turns();
      assertEquals(await subject.lookup([sampleKey(7), first.key]), "00", "what was never stored");
      await subject.store(given);
      adapter.touch([sampleKey(7), ...given.map(({ key }) => key), first.key]);
      await turns();
      await subject.assertHeld(given);
      const removal = await adapter.delete?.([first.key], call());
      if (removal !== undefined) {
        assertEquals(bits(removal.deleted), "1", "what is touched is not locked");
        adapter.touch([first.key]);
        await turns();
        assertEquals(await subject.load(first), null, "what was removed stays so");
      }
      await subject[Symbol.asyncDispose]();
      adapter.touch(given.map(({ key }) => key));
      await turns();
      assertEquals(subject.errors, []);
    },
  },
];
