import { assert, assertEquals } from "@std/assert";
import type { AdapterObject } from "../../l2/adapter.ts";
import { bytesOf, objectOf, roomFor, type Sample, sample, sampleKey, samples } from "./samples.ts";
import { areEqual, call, type Subject, type SubjectCase, turns } from "./subject.ts";

const OBJECT_BYTES = 200_003;
const COUNT = 4;
/** How long a call runs before it is aborted, in turns of the event loop. */
const ABORTED_AFTER = [0, 1, 3];

/** Fills the parts with what nobody stored, and says whether that is still there. */
function marked(objects: readonly AdapterObject[]): () => boolean {
  const parts = objects.flatMap((object) => object.parts);
  for (const part of parts) part.fill(0x5a);
  const marks = parts.map((part) => part.slice());
  return () => parts.every((part, i) => areEqual(part, marks[i] ?? new Uint8Array()));
}

/** Makes a call and aborts it after so many turns; resolves when it has settled. */
async function aborted<T>(after: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const call = work(controller.signal);
  await turns(after);
  controller.abort();
  return await call;
}

/** Fails if there is anything else than the object, or nothing, under its key. */
async function assertWholeOrMissing(subject: Subject, given: Sample): Promise<void> {
  const bytes = await subject.load(given);
  assert(bytes === null || areEqual(bytes, given.bytes), `Wrong bytes under ${given.key.id}`);
}

/** Calls whose caller does not wait to the end, and what is told before it. */
export const lateCases: readonly SubjectCase[] = [
  {
    name: "a load that is aborted leaves the parts alone once it has settled",
    async check(subject) {
      const given = samples(COUNT, OBJECT_BYTES);
      await subject.store(given);
      for (const after of ABORTED_AFTER) {
        const rooms = given.map(({ key }) => roomFor(key, OBJECT_BYTES));
        await aborted(after, (signal) => subject.adapter.load(rooms, { signal }));
        const isUntouched = marked(rooms);
        await subject.assertHeld(given.slice(0, 1));
        await turns();
        assert(isUntouched(), "written to after the call");
      }
    },
  },
  {
    name: "a store that is aborted reads the parts no more once it has settled",
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
    name: "lookups and removals that are aborted settle, and leave nothing partial",
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
      await subject.assertHeld(given);
    },
  },
  {
    name: "tells of an object that is loaded when its parts are filled, and not before",
    async check(subject) {
      const given = samples(5, 70_000);
      await subject.store(given);
      const missing = sample(99, 70_000);
      const asked = given.toSpliced(2, 0, missing);
      const rooms = asked.map(({ key, bytes }) => roomFor(key, bytes.byteLength));
      const wrong: number[] = [];
      const loaded = await subject.adapter.load(rooms, {
        ...call(),
        onLoaded: (index) => {
          const [object, expected] = [rooms[index], asked[index]];
          const isFilled = object !== undefined && expected !== undefined &&
            areEqual(bytesOf(object), expected.bytes);
          if (!isFilled) wrong.push(index);
        },
      });
      assertEquals(wrong, [], "objects that were told of too early");
      assertEquals(loaded.popcount(), given.length);
    },
  },
  {
    name: "a listing can be left early, or be aborted",
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
    name: "a listing misses nothing while what it listed is removed",
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
    name: "delete of a key that is named twice frees its bytes once",
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
