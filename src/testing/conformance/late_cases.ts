import { assert, assertEquals } from "@std/assert";
import type { AdapterObject } from "../../adapter/contract.ts";
import {
  bytesOf,
  loadTarget,
  objectOf,
  type Sample,
  sample,
  sampleKey,
  samples,
} from "./samples.ts";
import { areEqual, call, type Subject, type SubjectCase, turns } from "./subject.ts";

const OBJECT_BYTES = 200_003;
const COUNT = 4;
/** Numbers of event loop turns after which calls are aborted. */
const ABORTED_AFTER = [0, 1, 3];

/** Fills the parts with a marker; the returned function tells whether it is still there. */
function marked(objects: readonly AdapterObject[]): () => boolean {
  const parts = objects.flatMap((object) => object.parts);
  for (const part of parts) part.fill(0x5a);
  const marks = parts.map((part) => part.slice());
  return () => parts.every((part, i) => areEqual(part, marks[i] ?? new Uint8Array()));
}

/** Runs a call and aborts it after `turnCount` turns of the event loop. */
async function aborted<T>(
  turnCount: number,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const call = work(controller.signal);
  await turns(turnCount);
  controller.abort();
  return await call;
}

/** Fails if the key has bytes other than those of the object. */
async function assertWholeOrMissing(subject: Subject, given: Sample): Promise<void> {
  const bytes = await subject.load(given);
  assert(bytes === null || areEqual(bytes, given.bytes), `Wrong bytes under ${given.key.id}`);
}

/** Cases about aborted calls, early notifications and listings. */
export const lateCases: readonly SubjectCase[] = [
  {
    name: "an aborted load does not write to the parts after it settles",
    async check(subject) {
      const given = samples(COUNT, OBJECT_BYTES);
      await subject.store(given);
      for (const after of ABORTED_AFTER) {
        const targets = given.map(({ key }) => loadTarget(key, OBJECT_BYTES));
        await aborted(after, (signal) => subject.adapter.load(targets, { signal }));
        const isUntouched = marked(targets);
        await subject.assertStored(given.slice(0, 1));
        await turns();
        assert(isUntouched(), "written to after the call");
      }
    },
  },
  {
    name: "an aborted store does not read the parts after it settles",
    async check(subject) {
      for (const after of ABORTED_AFTER) {
        const given = samples(COUNT, OBJECT_BYTES);
        const objects = given.map(objectOf);
        await aborted(after, (signal) => subject.adapter.store(objects, { signal }));
        marked(objects);
        await turns();
        for (const each of given) await assertWholeOrMissing(subject, each);
      }
    },
  },
  {
    name: "aborted lookups and removals settle and leave no partial objects",
    async check(subject) {
      const given = samples(20, 1000);
      const keys = given.map(({ key }) => key);
      await subject.store(given);
      for (const after of ABORTED_AFTER) {
        for (const prefix of [true, false]) {
          const found = await aborted(
            after,
            (signal) => subject.adapter.lookupAndLock(keys, { signal, prefix }),
          );
          assertEquals(found.length, keys.length, "one bit a key");
          subject.adapter.unlock?.(found.gather(keys));
        }
      }
      const result = await aborted(0, async (signal) => {
        return await subject.adapter.delete?.(keys, { signal });
      });
      for (const [i, each] of given.entries()) {
        await assertWholeOrMissing(subject, each);
        if (result?.deleted.test(i)) assertEquals(await subject.load(each), null);
      }
      await subject.store(given);
      await subject.assertStored(given);
    },
  },
  {
    name: "calls onLoaded only for objects whose parts are filled",
    async check(subject) {
      const given = samples(5, 70_000);
      await subject.store(given);
      const missing = sample(99, 70_000);
      const asked = given.toSpliced(2, 0, missing);
      const targets = asked.map(({ key, bytes }) => loadTarget(key, bytes.byteLength));
      const wrong: number[] = [];
      const loaded = await subject.adapter.load(targets, {
        ...call(),
        onLoaded: (index) => {
          const [object, expected] = [targets[index], asked[index]];
          const isFilled = object !== undefined && expected !== undefined &&
            areEqual(bytesOf(object), expected.bytes);
          if (!isFilled) wrong.push(index);
        },
      });
      assertEquals(wrong, [], "objects reported before they were filled");
      assertEquals(loaded.popcount(), given.length);
    },
  },
  {
    name: "a listing can be ended early or aborted",
    async check(subject) {
      if (subject.adapter.list === undefined) return;
      const given = samples(20, 100);
      await subject.store(given);
      for await (const { byteLength } of subject.adapter.list(call())) {
        assertEquals(byteLength, 100);
        break;
      }
      const signal = AbortSignal.abort();
      await Array.fromAsync(subject.adapter.list({ signal })).catch(() => {});
      assertEquals((await Array.fromAsync(subject.adapter.list(call()))).length, given.length);
    },
  },
  {
    name: "a listing is complete while listed objects are removed",
    async check(subject) {
      const { adapter } = subject;
      if (adapter.list === undefined || adapter.delete === undefined) return;
      const given = samples(24, 100);
      await subject.store(given);
      const seen: string[] = [];
      for await (const { key } of adapter.list(call())) {
        seen.push(key.id);
        await adapter.delete([key], call());
      }
      assertEquals(seen.sort(), given.map(({ key }) => key.id).sort());
      assertEquals(await subject.lookup([sampleKey(0)]), "0");
    },
  },
  {
    name: "deleting a key twice in one call frees its bytes once",
    async check(subject) {
      const { adapter } = subject;
      if (adapter.delete === undefined) return;
      const [a, b] = [sampleKey(0), sampleKey(1)];
      await subject.store(samples(2, 1000));
      const { deleted, bytes } = await adapter.delete([a, b, a], call());
      assertEquals([bytes, deleted.test(0) || deleted.test(2), deleted.test(1)], [
        2000,
        true,
        true,
      ]);
      assertEquals(await subject.lookup([a, b]), "00");
    },
  },
];
