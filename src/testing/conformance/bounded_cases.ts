import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { objectOf, roomFor, type Sample, sample, samples } from "./samples.ts";
import { bits, call, type Subject, type SubjectCase } from "./subject.ts";

const MIB = 2 ** 20;
const CAPACITY_BYTES = 4 * MIB;
const OBJECT_BYTES = 60_000;
const BATCH = 8;

/** Stores a batch; the objects that it took. */
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

/** Locks objects; those that are there, since some of a batch may have left for others of it. */
async function lock({ adapter }: Subject, given: readonly Sample[]): Promise<Sample[]> {
  const keys = given.map(({ key }) => key);
  return (await adapter.lookupAndLock(keys, { ...call(), prefix: false })).gather(given);
}

/** An adapter that bounds itself: these run where its author gives a bounded configuration. */
export const boundedCases: readonly SubjectCase[] = [
  {
    name: "makes room within its capacity, but not by what is locked",
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
      assertGreater(last.length, 0, "objects that a full store takes");
      await subject.assertHeld(last.slice(-1));
      await subject.assertHeld(locked);
      subject.adapter.unlock?.(locked.map(({ key }) => key));
    },
  },
  {
    name: "what is not locked any more makes room again",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const given: Sample[] = [];
      // Twice as many as there is room for: what is not taken is not locked either.
      for (let n = 0; n * OBJECT_BYTES < 2 * CAPACITY_BYTES; n += BATCH) {
        const batch = Array.from({ length: BATCH }, (_, i) => sample(n + i, OBJECT_BYTES));
        const taken = await offer(subject, batch);
        given.push(...await lock(subject, taken));
      }
      await assertWithinCapacity(subject);
      await subject.assertHeld(given);
      subject.adapter.unlock?.(given.map(({ key }) => key));
      const young = Array.from({ length: BATCH }, (_, i) => sample(1000 + i, OBJECT_BYTES));
      const taken = await offer(subject, young);
      assertGreater(taken.length, 0, "objects that it takes when nothing is locked");
      await subject.assertHeld(taken.slice(-1));
    },
  },
  {
    name: "what was locked twice and unlocked once is locked",
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
      await subject.assertHeld(locked);
      subject.adapter.unlock?.(keys);
    },
  },
  {
    name: "an object that is larger than all of the store costs only itself",
    capacityBytes: CAPACITY_BYTES,
    async check(subject) {
      const [a, b] = [sample(0, OBJECT_BYTES), sample(1, OBJECT_BYTES)];
      const giant = sample(2, CAPACITY_BYTES + MIB);
      const { maxObjectBytes = Infinity } = subject.promises;
      // What is larger than it says that it takes, it is not given.
      if (giant.bytes.byteLength > maxObjectBytes) return;
      await subject.store([a]);
      assertEquals(await lock(subject, [a]), [a]);
      const { stored } = await subject.adapter.store([giant, b].map(objectOf), call());
      assertEquals(bits(stored), "01");
      const room = roomFor(giant.key, giant.bytes.byteLength);
      assert(!(await subject.adapter.load([room], call())).test(0), "an object that has no room");
      await assertWithinCapacity(subject);
      await subject.assertHeld([a, b]);
      subject.adapter.unlock?.([a.key]);
    },
  },
];
