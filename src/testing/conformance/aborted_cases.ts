import { assert, assertEquals } from "@std/assert";
import type { AdapterObject, Bitmap } from "../../adapter/contract.ts";
import {
  areEqual,
  keysOf,
  loadTarget,
  objectOf,
  sample,
  sampleKey,
  samples,
  targetOf,
} from "./samples.ts";
import { assertFilled, call, type Cases, turns } from "./subject.ts";

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

/** Cases about aborted calls: they settle, and leave whole objects or none. */
export const abortedCases: Cases = {
  async "calls aborted before they begin settle and leave no partial objects"(subject) {
    const given = sample(0, OBJECT_BYTES);
    const signal = AbortSignal.abort();
    // An adapter may finish before it checks the signal.
    const { stored } = await subject.adapter.store([objectOf(given)], { signal });
    assertEquals(await subject.assertWhole(given), stored.test(0));
    const target = targetOf(given);
    const loaded = await subject.adapter.load([target], { signal });
    assertFilled(loaded, [target], [given]);
    const found = await subject.adapter.lookupAndLock([given.key], { signal, prefix: false });
    assert(!found.test(0) || stored.test(0));
    subject.adapter.unlock?.(found.gather([given.key]));
  },
  async "a store aborted while it runs settles and leaves no partial objects"(subject) {
    const given = samples(12, OBJECT_BYTES);
    const objects = given.map(objectOf);
    const { stored } = await aborted(0, (signal) => subject.adapter.store(objects, { signal }));
    assertEquals(stored.length, given.length);
    for (const [i, each] of given.entries()) {
      assertEquals(await subject.assertWhole(each), stored.test(i));
    }
  },
  async "a load aborted while it runs claims only objects that it filled"(subject) {
    const given = samples(12, OBJECT_BYTES);
    await subject.store(given);
    const targets = given.map(targetOf);
    const loaded = await aborted(0, (signal) => subject.adapter.load(targets, { signal }));
    assertFilled(loaded, targets, given);
  },
  async "works after misses and aborted calls"(subject) {
    const given = sample(0, OBJECT_BYTES);
    const signal = AbortSignal.abort();
    await subject.adapter.store([objectOf(given)], { signal });
    await subject.adapter.load([loadTarget(given.key, 7)], call());
    await subject.adapter.load([loadTarget(sampleKey(99), 7)], { signal });
    await subject.store([given]);
    assertEquals(await subject.lookup([given.key]), "1");
    await subject.assertStored([given]);
  },
  async "an aborted load does not write to the parts after it settles"(subject) {
    const given = samples(COUNT, OBJECT_BYTES);
    await subject.store(given);
    for (const after of ABORTED_AFTER) {
      const targets = given.map(targetOf);
      await aborted(after, (signal) => subject.adapter.load(targets, { signal }));
      const isUntouched = marked(targets);
      await subject.assertStored(given.slice(0, 1));
      await turns();
      assert(isUntouched(), "written to after the call");
    }
  },
  async "an aborted store does not read the parts after it settles"(subject) {
    for (const after of ABORTED_AFTER) {
      const given = samples(COUNT, OBJECT_BYTES);
      const objects = given.map(objectOf);
      await aborted(after, (signal) => subject.adapter.store(objects, { signal }));
      marked(objects);
      await turns();
      for (const each of given) await subject.assertWhole(each);
    }
  },
  async "aborted lookups and removals settle and leave no partial objects"(subject) {
    const given = samples(20, 1000);
    const keys = keysOf(given);
    await subject.store(given);
    for (const after of ABORTED_AFTER) {
      for (const prefix of [true, false]) {
        const look = (signal: AbortSignal): Promise<Bitmap> =>
          subject.adapter.lookupAndLock(keys, { signal, prefix });
        const found = await aborted(after, look);
        assertEquals(found.length, keys.length, "one bit a key");
        subject.adapter.unlock?.(found.gather(keys));
      }
    }
    const remove = async (signal: AbortSignal) => await subject.adapter.delete?.(keys, { signal });
    const result = await aborted(0, remove);
    for (const [i, each] of given.entries()) {
      await subject.assertWhole(each);
      if (result?.deleted.test(i)) assertEquals(await subject.load(each), null);
    }
    await subject.store(given);
    await subject.assertStored(given);
  },
};
