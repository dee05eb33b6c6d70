import { assert, assertEquals } from "@std/assert";
import {
  areGuardsIntact,
  isFilled,
  keysOf,
  objectOf,
  sample,
  samples,
  targetOf,
} from "./samples.ts";
import { bits, call, type Cases, turns } from "./subject.ts";

/** Cases about the ownership of buffers: they belong to the caller. */
export const bufferCases: Cases = {
  async "changes to the caller's buffers after a store have no effect"(subject) {
    const given = samples(3, 70_000);
    const objects = given.map(objectOf);
    await subject.adapter.store(objects, call());
    for (const { parts } of objects) for (const part of parts) part.fill(0xff);
    await subject.assertStored(given);
  },
  async "changes to the caller's array after a store have no effect"(subject) {
    const { adapter } = subject;
    const given = samples(3, 70_000);
    const foreign = samples(3, 70_000, 3);
    for (const signal of [AbortSignal.abort(), call().signal]) {
      const objects = given.map(objectOf);
      const { stored } = await adapter.store(objects, { signal });
      objects.splice(0, objects.length, ...foreign.map(objectOf));
      await turns();
      if (!signal.aborted) assertEquals(bits(stored), "111");
      await subject.assertStored(stored.gather(given));
      assertEquals(await subject.lookup(keysOf(foreign)), "000");
    }
  },
  async "changes to the caller's buffers after a load have no effect"(subject) {
    const given = sample(1, 70_000);
    await subject.store([given]);
    const target = targetOf(given);
    await subject.adapter.load([target], call());
    for (const part of target.parts) part.fill(0xff);
    await subject.assertStored([given]);
  },
  async "store neither changes nor detaches the parts"(subject) {
    const given = samples(3, 70_000);
    const objects = given.map(objectOf);
    await subject.adapter.store(objects, call());
    for (const [i, object] of objects.entries()) {
      assert(object.parts.every((part) => !isDetached(part)), "detached");
      assert(isFilled(object, given[i]), "changed");
      assert(areGuardsIntact(object), "bytes around the parts changed");
    }
  },
  async "load writes only into the parts"(subject) {
    const given = sample(1, 70_000);
    await subject.store([given]);
    const targets = [targetOf(given), targetOf(sample(2, 70_000))];
    await subject.adapter.load(targets, call());
    for (const target of targets) {
      assert(target.parts.every((part) => !isDetached(part)), "detached");
      assertEquals(target.parts.reduce((sum, part) => sum + part.byteLength, 0), 70_000);
      assert(areGuardsIntact(target), "bytes around the parts changed");
    }
  },
};

function isDetached({ buffer }: Uint8Array): boolean {
  return buffer instanceof ArrayBuffer && buffer.detached;
}
