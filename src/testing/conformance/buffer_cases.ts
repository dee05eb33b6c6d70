import { assert, assertEquals } from "@std/assert";
import { areGuardsIntact, bytesOf, objectOf, roomFor, sample, samples } from "./samples.ts";
import { areEqual, bits, call, type SubjectCase, turns } from "./subject.ts";

/** Buffers are the caller's. */
export const bufferCases: readonly SubjectCase[] = [
  {
    name: "what the caller does to its buffers after a store changes nothing",
    async check(subject) {
      const given = samples(3, 70_000);
      const objects = given.map(objectOf);
      await subject.adapter.store(objects, call());
      for (const { parts } of objects) for (const part of parts) part.fill(0xff);
      await subject.assertHeld(given);
    },
  },
  {
    name: "what the caller does to the array of a batch after a store changes nothing",
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
        await subject.assertHeld(stored.gather(given));
        assertEquals(await subject.lookup(foreign.map(({ key }) => key)), "000");
      }
    },
  },
  {
    name: "what the caller does to its buffers after a load changes nothing",
    async check(subject) {
      const given = sample(1, 70_000);
      await subject.store([given]);
      const room = roomFor(given.key, given.bytes.byteLength);
      await subject.adapter.load([room], call());
      for (const part of room.parts) part.fill(0xff);
      await subject.assertHeld([given]);
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
    name: "load writes into the parts and nowhere else",
    async check(subject) {
      const given = sample(1, 70_000);
      await subject.store([given]);
      const rooms = [roomFor(given.key, 70_000), roomFor(sample(2).key, 70_000)];
      await subject.adapter.load(rooms, call());
      for (const room of rooms) {
        assert(room.parts.every(({ buffer }) => !buffer.detached), "detached");
        assertEquals(room.parts.reduce((sum, part) => sum + part.byteLength, 0), 70_000);
        assert(areGuardsIntact(room), "bytes around the parts changed");
      }
    },
  },
];
