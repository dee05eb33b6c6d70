import { assert, assertEquals } from "@std/assert";
import { bytesOf, objectOf, roomFor, type Sample, sampleBytes, sampleKey } from "./samples.ts";
import { areEqual, bits, call, type Subject, type SubjectCase } from "./subject.ts";

const OBJECT_BYTES = 200_003;

/** Version `v` of the object of key `n`: all of its bytes tell both. */
function version(n: number, v: number): Sample {
  return { key: sampleKey(n), bytes: sampleBytes(n * 1000 + v, OBJECT_BYTES) };
}

/** Loads an object that may have any of its versions, but whole, or be a miss. */
async function assertWhole(subject: Subject, versions: readonly Sample[]): Promise<boolean> {
  const [first] = versions;
  assert(first !== undefined);
  const bytes = await subject.load(first);
  if (bytes === null) return false;
  assert(versions.some((each) => areEqual(each.bytes, bytes)), "a mixture of versions");
  return true;
}

/** Objects are there entirely or not at all, whatever happens meanwhile. */
export const concurrencyCases: readonly SubjectCase[] = [
  {
    name: "concurrent stores and loads of the same keys give whole objects",
    async check(subject) {
      const keys = [0, 1];
      const versions = keys.map((n) => [0, 1, 2, 3].map((v) => version(n, v)));
      for (let round = 0; round < 5; round++) {
        const work: Promise<unknown>[] = [];
        for (const v of [0, 1, 2, 3]) {
          work.push(subject.store(versions.flatMap((each) => each[v] ?? [])));
          for (const each of versions) work.push(assertWhole(subject, each));
        }
        await Promise.all(work);
        for (const each of versions) assert(await assertWhole(subject, each), "a miss");
      }
    },
  },
  {
    name: "concurrent calls for different keys do not mix them up",
    async check(subject) {
      const given = Array.from({ length: 20 }, (_, n) => version(n, 0));
      await Promise.all(given.map((each) => subject.store([each])));
      await Promise.all(given.map((each) => subject.assertHeld([each])));
    },
  },
  {
    name: "calls that are aborted before they begin settle, and leave nothing partial",
    async check(subject) {
      const given = version(0, 0);
      const signal = AbortSignal.abort();
      // An adapter may be done before it looks at the signal.
      const { stored } = await subject.adapter.store([objectOf(given)], { signal });
      assertEquals(await assertWhole(subject, [given]), stored.test(0));
      const room = roomFor(given.key, OBJECT_BYTES);
      const loaded = await subject.adapter.load([room], { signal });
      if (loaded.test(0)) assert(areEqual(bytesOf(room), given.bytes));
      const found = await subject.adapter.lookupAndLock([given.key], { signal, prefix: false });
      assert(!found.test(0) || stored.test(0));
      subject.adapter.unlock?.(found.gather([given.key]));
    },
  },
  {
    name: "a store that is aborted in the middle settles, and leaves nothing partial",
    async check(subject) {
      const given = Array.from({ length: 12 }, (_, n) => version(n, 0));
      const controller = new AbortController();
      const call = subject.adapter.store(given.map(objectOf), { signal: controller.signal });
      await Promise.resolve();
      controller.abort();
      const { stored } = await call;
      assertEquals(stored.length, given.length);
      for (const [i, each] of given.entries()) {
        assertEquals(await assertWhole(subject, [each]), stored.test(i));
      }
    },
  },
  {
    name: "a load that is aborted in the middle claims only what it filled",
    async check(subject) {
      const given = Array.from({ length: 12 }, (_, n) => version(n, 0));
      await subject.store(given);
      const controller = new AbortController();
      const rooms = given.map(({ key }) => roomFor(key, OBJECT_BYTES));
      const call = subject.adapter.load(rooms, { signal: controller.signal });
      await Promise.resolve();
      controller.abort();
      const loaded = await call;
      for (const [i, each] of given.entries()) {
        const room = rooms[i];
        if (loaded.test(i)) assert(room !== undefined && areEqual(bytesOf(room), each.bytes));
      }
    },
  },
  {
    name: "works after misses and aborted calls",
    async check(subject) {
      const given = version(0, 0);
      const signal = AbortSignal.abort();
      await subject.adapter.store([objectOf(given)], { signal });
      await subject.adapter.load([roomFor(given.key, 7)], call());
      await subject.adapter.load([roomFor(sampleKey(99), 7)], { signal });
      await subject.store([given]);
      assertEquals(await subject.lookup([given.key]), "1");
      assertEquals(
        bits(await subject.adapter.load([roomFor(given.key, OBJECT_BYTES)], call())),
        "1",
      );
      await subject.assertHeld([given]);
    },
  },
];
