import { assert, assertEquals } from "@std/assert";
import { bytesOf, loadTarget, objectOf, type Sample, sampleBytes, sampleKey } from "./samples.ts";
import { areEqual, bits, call, type Subject, type SubjectCase } from "./subject.ts";

const OBJECT_BYTES = 200_003;

/** Version `v` of the object of key `n`; the bytes depend on both. */
function version(n: number, v: number): Sample {
  return { key: sampleKey(n), bytes: sampleBytes(n * 1000 + v, OBJECT_BYTES) };
}

/** Loads an object, which must be a whole version or a miss; returns whether it is there. */
async function assertWhole(subject: Subject, versions: readonly Sample[]): Promise<boolean> {
  const [first] = versions;
  assert(first !== undefined);
  const bytes = await subject.load(first);
  if (bytes === null) return false;
  assert(versions.some((each) => areEqual(each.bytes, bytes)), "a mixture of versions");
  return true;
}

/** Cases about atomicity under concurrent and aborted calls. */
export const concurrencyCases: readonly SubjectCase[] = [
  {
    name: "concurrent stores and loads of the same keys return whole objects",
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
      await Promise.all(given.map((each) => subject.assertStored([each])));
    },
  },
  {
    name: "calls aborted before they begin settle and leave no partial objects",
    async check(subject) {
      const given = version(0, 0);
      const signal = AbortSignal.abort();
      // An adapter may finish before it checks the signal.
      const { stored } = await subject.adapter.store([objectOf(given)], { signal });
      assertEquals(await assertWhole(subject, [given]), stored.test(0));
      const target = loadTarget(given.key, OBJECT_BYTES);
      const loaded = await subject.adapter.load([target], { signal });
      if (loaded.test(0)) assert(areEqual(bytesOf(target), given.bytes));
      const found = await subject.adapter.lookupAndLock([given.key], { signal, prefix: false });
      assert(!found.test(0) || stored.test(0));
      subject.adapter.unlock?.(found.gather([given.key]));
    },
  },
  {
    name: "a store aborted while it runs settles and leaves no partial objects",
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
    name: "a load aborted while it runs claims only objects that it filled",
    async check(subject) {
      const given = Array.from({ length: 12 }, (_, n) => version(n, 0));
      await subject.store(given);
      const controller = new AbortController();
      const targets = given.map(({ key }) => loadTarget(key, OBJECT_BYTES));
      const call = subject.adapter.load(targets, { signal: controller.signal });
      await Promise.resolve();
      controller.abort();
      const loaded = await call;
      for (const [i, each] of given.entries()) {
        const target = targets[i];
        if (loaded.test(i)) assert(target !== undefined && areEqual(bytesOf(target), each.bytes));
      }
    },
  },
  {
    name: "works after misses and aborted calls",
    async check(subject) {
      const given = version(0, 0);
      const signal = AbortSignal.abort();
      await subject.adapter.store([objectOf(given)], { signal });
      await subject.adapter.load([loadTarget(given.key, 7)], call());
      await subject.adapter.load([loadTarget(sampleKey(99), 7)], { signal });
      await subject.store([given]);
      assertEquals(await subject.lookup([given.key]), "1");
      assertEquals(
        bits(await subject.adapter.load([loadTarget(given.key, OBJECT_BYTES)], call())),
        "1",
      );
      await subject.assertStored([given]);
    },
  },
];
