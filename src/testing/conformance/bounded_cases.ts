import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { MIB } from "../../base/units.ts";
import { keysOf, objectOf, type Sample, sample, samples, targetOf } from "./samples.ts";
import { bits, call, CAPACITY_BYTES, type Cases, type Subject, turns } from "./subject.ts";

const OBJECT_BYTES = 60_000;
const BATCH = 8;

/**
 * Stores batches of new objects, together larger than the capacity.
 *
 * @param times Their size, in capacities.
 * @param afterEach Called with the accepted objects of each batch.
 * @returns The accepted objects.
 */
async function overfill(
  { adapter }: Subject,
  times = 1.5,
  afterEach: (taken: readonly Sample[]) => unknown = () => {},
): Promise<Sample[]> {
  const all: Sample[] = [];
  for (let n = 0; n * OBJECT_BYTES < times * CAPACITY_BYTES; n += BATCH) {
    const batch = samples(BATCH, OBJECT_BYTES, 1000 + n);
    const { stored } = await adapter.store(batch.map(objectOf), call());
    assertEquals(stored.length, BATCH, "one bit an object");
    const taken = stored.gather(batch);
    await afterEach(taken);
    all.push(...taken);
  }
  return all;
}

async function assertWithinCapacity({ adapter }: Subject): Promise<void> {
  const usage = await adapter.usage?.(call());
  if (usage?.capacityBytes === undefined) return;
  assertLessOrEqual(usage.usedBytes, usage.capacityBytes, "bytes used");
}

/** Cases for adapters that bound themselves; run if there is a `boundedConfig`. */
export const boundedCases: Cases = {
  async "evicts to stay within its capacity, but never locked objects"(subject) {
    const locked = samples(BATCH, OBJECT_BYTES);
    await subject.store(locked);
    assertEquals(await subject.lock(locked), locked);
    let last: readonly Sample[] = [];
    await overfill(subject, 3, async (taken) => {
      last = taken;
      await assertWithinCapacity(subject);
    });
    assertGreater(last.length, 0, "objects accepted by a full store");
    await subject.assertStored(last.slice(-1));
    await subject.assertStored(locked);
    subject.unlock(locked);
  },
  async "unlocked objects can be evicted again"(subject) {
    const given: Sample[] = [];
    // Rejected objects are not locked.
    await overfill(subject, 1.25, async (taken) => given.push(...await subject.lock(taken)));
    await assertWithinCapacity(subject);
    await subject.assertStored(given);
    subject.unlock(given);
    const fresh = samples(BATCH, OBJECT_BYTES);
    const { stored } = await subject.adapter.store(fresh.map(objectOf), call());
    const taken = stored.gather(fresh);
    assertGreater(taken.length, 0, "objects accepted when nothing is locked");
    await subject.assertStored(taken.slice(-1));
  },
  async "an object locked twice and unlocked once stays locked"(subject) {
    const locked = samples(BATCH, OBJECT_BYTES);
    await subject.store(locked);
    assertEquals(await subject.lock(locked), locked);
    assertEquals(await subject.lock(locked), locked);
    subject.unlock(locked);
    await overfill(subject);
    await subject.assertStored(locked);
    subject.unlock(locked);
  },
  async "an object larger than the store affects no other object"(subject) {
    const [a, b] = [sample(0, OBJECT_BYTES), sample(1, OBJECT_BYTES)];
    const giant = sample(2, CAPACITY_BYTES + MIB);
    const { maxObjectBytes = Infinity } = subject.promises;
    // The cache never passes objects above the declared maximum.
    if (giant.bytes.byteLength > maxObjectBytes) return;
    await subject.store([a]);
    assertEquals(await subject.lock([a]), [a]);
    const { stored } = await subject.adapter.store([giant, b].map(objectOf), call());
    assertEquals(bits(stored), "01");
    const loaded = await subject.adapter.load([targetOf(giant)], call());
    assert(!loaded.test(0), "an object that does not fit");
    await assertWithinCapacity(subject);
    await subject.assertStored([a, b]);
    subject.unlock([a]);
  },
  async "evicts unused objects before objects that are looked up and loaded"(subject) {
    const used = samples(BATCH, OBJECT_BYTES);
    await subject.store(used);
    await overfill(subject, 1.5, async () => {
      const found = await subject.lookup(keysOf(used), true);
      assertEquals(found, "1".repeat(BATCH), "recently used objects");
      await subject.assertStored(used);
    });
  },
  async "evicts untouched objects before touched ones, if the adapter has touch"(subject) {
    const { adapter } = subject;
    if (adapter.touch === undefined) return;
    const used = samples(BATCH, OBJECT_BYTES);
    await subject.store(used);
    await overfill(subject, 1.5, async () => {
      adapter.touch?.(keysOf(used));
      await turns();
    });
    await subject.assertStored(used);
  },
  async "reports exactly the evicted objects, if it reports any"(subject) {
    const { evicted } = subject;
    const given = samples(BATCH, OBJECT_BYTES);
    await subject.store(given);
    // Removals and replacements by the caller are not evictions.
    await subject.store(given.slice(1));
    const removal = await subject.delete(keysOf(given).slice(0, 1));
    await turns();
    assertEquals([...evicted], [], "evictions below the capacity");
    const kept = given.slice(removal === undefined ? 0 : 1);
    const keys = keysOf([...kept, ...await overfill(subject)]);
    await turns();
    if (evicted.size === 0) return;
    const found = await subject.lookup(keys);
    assertGreater(found.replaceAll("1", "").length, 0, "evicted objects");
    await turns();
    const reported = keys.map(({ id }) => evicted.has(id) ? "0" : "1").join("");
    assertEquals(reported, found, "objects present according to the reported evictions");
    const unknown = evicted.difference(new Set(keys.map(({ id }) => id)));
    assertEquals([...unknown], [], "reported objects that were never stored");
  },
};
