import { assert, assertEquals } from "@std/assert";
import { areGuardsIntact, bytesOf, loadTarget, objectOf, sample, samples } from "./samples.ts";
import { areEqual, bits, call, type SubjectCase, turns } from "./subject.ts";

/** Cases about the ownership of buffers: they belong to the caller. */
export const bufferCases: readonly SubjectCase[] = [
  {
    name: "changes to the caller's buffers after a store have no effect",
    async check(subject) {
      const given = samples(3, 70_000);
      const objects = given.map(objectOf);
      await subject.adapter.store(objects, call());
      for (const { parts } of objects) for (const part of parts) part.fill(0xff);
      await subject.assertStored(given);
    },
  },
  {
    name: "changes to the caller's array after a store have no effect",
    async check(subject) {
      const { adapter } = subject;
      const given = samples(3, 70_000);
      const foreign = samples(6, 70_000).slice(3);
      for (const signal of [AbortSignal.abort(), call().signal]) {
        const objects = given.map(objectOf);
        const { stored } = await adapter.store(objects, { signal });
        objects.splice(0, objects.length, ...foreign.map(objectOf));
        await turns();
        if (!signal.aborted) assertEquals(bits(stored), "111");
        await subject.assertStored(stored.gather(given));
        assertEquals(await subject.lookup(foreign.map(({ key }) => key)), "000");
      }
    },
  },
  {
    name: "changes to the caller's buffers after a load have no effect",
    async check(subject) {
      const given = sample(1, 70_000);
      await subject.store([given]);
      const target = loadTarget(given.key, given.bytes.byteLength);
      await subject.adapter.load([target], call());
      for (const part of target.parts) part.fill(0xff);
      await subject.assertStored([given]);
    },
  },
  {
    name: "store neither changes nor detaches the parts",
    async check(subject) {
      const given = samples(3, 70_000);
      const objects = given.map(objectOf);
      await subject.adapter.store(objects, call());
      for (const [i, object] of objects.entries()) {
        assert(object.parts.every(({ buffer }) => !buffer.detached), "detached");
        assert(areEqual(bytesOf(object), given[i]?.bytes ?? new Uint8Array()), "changed");
        assert(areGuardsIntact(object), "bytes around the parts changed");
      }
    },
  },
  {
    name: "load writes only into the parts",
    async check(subject) {
      const given = sample(1, 70_000);
      await subject.store([given]);
      const targets = [loadTarget(given.key, 70_000), loadTarget(sample(2).key, 70_000)];
      await subject.adapter.load(targets, call());
      for (const target of targets) {
        assert(target.parts.every(({ buffer }) => !buffer.detached), "detached");
        assertEquals(target.parts.reduce((sum, part) => sum + part.byteLength, 0), 70_000);
        assert(areGuardsIntact(target), "bytes around the parts changed");
      }
    },
  },
];
