import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { MIB } from "../../base/units.ts";
import { loadTarget, objectOf, type Sample, sample, samples } from "./samples.ts";
import { bits, call, type Subject, type SubjectCase } from "./subject.ts";

const CAPACITY_BYTES = 4 * MIB;
const OBJECT_BYTES = 60_000;
const BATCH = 8;

/** Stores a batch and returns the accepted objects. */
async function offer(subject: Subject, batch: readonly Sample[]): Promise<Sample[]> {
  const { stored } = await subject.adapter.store(batch.map(objectOf), call());
  assertEquals(stored.length, batch.length, "one bit an object");
  return stored.gather(batch);
}

async function assertWithinCapacity({ adapter }: Subject): Promise<void> {
  const usage = await adapter.usage?.(call());
  if (usage?.capacityBytes === undefined) return;
  assertLessOrEqual(usage.usedBytes, usage.capacityBytes, "bytes used");
}

/** Locks objects and returns the locked ones: storing a batch may evict some of its own objects. */
async function lock({ adapter }: Subject, given: readonly Sample[]): Promise<Sample[]> {
  const keys = given.map(({ key }) => key);
  return (await adapter.lookupAndLock(keys, { ...call(), prefix: false })).gather(given);
}

/** Cases for adapters that bound themselves; run if there is a `boundedConfig`. */
export const boundedCases: readonly SubjectCase[] = [
  {
    name: "evicts to stay within its capacity, but never locked objects",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const locked = samples(BATCH, OBJECT_BYTES);
      await subject.store(locked);
      assertEquals(await lock(subject, locked), locked);
      let bytes = 0;
      let last: Sample[] = [];
      for (let n = 100; bytes < 3 * CAPACITY_BYTES; n += BATCH) {
        const batch = Array.from({ length: BATCH }, (_, i) => sample(n + i, OBJECT_BYTES));
        last = await offer(subject, batch);
        bytes += BATCH * OBJECT_BYTES;
        await assertWithinCapacity(subject);
      }
      assertGreater(last.length, 0, "objects accepted by a full store");
      await subject.assertStored(last.slice(-1));
      await subject.assertStored(locked);
      subject.adapter.unlock?.(locked.map(({ key }) => key));
    },
  },
  {
    name: "unlocked objects can be evicted again",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const given: Sample[] = [];
      // Twice as many as fit. Rejected objects are not locked.
      for (let n = 0; n * OBJECT_BYTES < 2 * CAPACITY_BYTES; n += BATCH) {
        const batch = Array.from({ length: BATCH }, (_, i) => sample(n + i, OBJECT_BYTES));
        const taken = await offer(subject, batch);
        given.push(...await lock(subject, taken));
      }
      await assertWithinCapacity(subject);
      await subject.assertStored(given);
      subject.adapter.unlock?.(given.map(({ key }) => key));
      const fresh = Array.from({ length: BATCH }, (_, i) => sample(1000 + i, OBJECT_BYTES));
      const taken = await offer(subject, fresh);
      assertGreater(taken.length, 0, "objects accepted when nothing is locked");
      await subject.assertStored(taken.slice(-1));
    },
  },
  {
    name: "an object locked twice and unlocked once stays locked",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const locked = samples(BATCH, OBJECT_BYTES);
      const keys = locked.map(({ key }) => key);
      await subject.store(locked);
      assertEquals(await lock(subject, locked), locked);
      assertEquals(await lock(subject, locked), locked);
      subject.adapter.unlock?.(keys);
      for (let n = 100; (n - 100) * OBJECT_BYTES < 1.5 * CAPACITY_BYTES; n += BATCH) {
        await offer(subject, Array.from({ length: BATCH }, (_, i) => sample(n + i, OBJECT_BYTES)));
      }
      await subject.assertStored(locked);
      subject.adapter.unlock?.(keys);
    },
  },
  {
    name: "an object larger than the store affects no other object",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const [a, b] = [sample(0, OBJECT_BYTES), sample(1, OBJECT_BYTES)];
      const giant = sample(2, CAPACITY_BYTES + MIB);
      const { maxObjectBytes = Infinity } = subject.promises;
      // The cache never passes objects above the declared maximum.
      if (giant.bytes.byteLength > maxObjectBytes) return;
      await subject.store([a]);
      assertEquals(await lock(subject, [a]), [a]);
      const { stored } = await subject.adapter.store([giant, b].map(objectOf), call());
      assertEquals(bits(stored), "01");
      const target = loadTarget(giant.key, giant.bytes.byteLength);
      assert(
        !(await subject.adapter.load([target], call())).test(0),
        "an object that does not fit",
      );
      await assertWithinCapacity(subject);
      await subject.assertStored([a, b]);
      subject.adapter.unlock?.([a.key]);
    },
  },
];
