import { assertEquals, assertNotEquals } from "@std/assert";
import { MIB } from "../../base/units.ts";
import { objectInParts, type Sample, sample, sampleBytes, samples } from "./samples.ts";
import { bits, call, type SubjectCase } from "./subject.ts";

/** Cases about storing and loading. */
export const roundTripCases: readonly SubjectCase[] = [
  {
    name: "returns an object in one part",
    async check({ adapter }) {
      const given = sample(1);
      const { stored } = await adapter.store([objectInParts(given, [])], call());
      assertEquals(bits(stored), "1");
      const target = new Uint8Array(given.bytes.byteLength);
      const { byteLength } = target;
      const loaded = await adapter.load([{ key: given.key, parts: [target], byteLength }], call());
      assertEquals(bits(loaded), "1");
      assertEquals(target, given.bytes);
    },
  },
  {
    name: "returns an object in parts of any size, including empty ones",
    async check(subject) {
      const given = sample(1, 10_007);
      const object = objectInParts(given, [0, 1, 1, 2, 4095, 8192, 10_007]);
      const { stored } = await subject.adapter.store([object], call());
      assertEquals(bits(stored), "1");
      await subject.assertStored([given]);
    },
  },
  {
    name: "returns objects of odd sizes",
    async check(subject) {
      const sizes = [1, 2, 3, 63, 64, 65, 511, 513, 4095, 4096, 4097, 65_535, 65_537];
      const given = sizes.map((size, n) => sample(n, size));
      await subject.store(given);
      await subject.assertStored(given);
    },
  },
  {
    name: "returns a batch of 300 objects of different sizes",
    async check(subject) {
      const given = Array.from({ length: 300 }, (_, n) => sample(n, 64 + n * 7));
      await subject.store(given);
      await subject.assertStored(given);
      await subject.assertStored(given.toReversed());
    },
  },
  {
    name: "returns an object of several MiB",
    async check(subject) {
      const given = sample(1, 5 * MIB + 3);
      await subject.store([given]);
      await subject.assertStored([given]);
    },
  },
  {
    name: "reports the objects and bytes that it stored",
    async check({ adapter }) {
      const given = samples(5, 100);
      const result = await adapter.store(given.map((each) => objectInParts(each, [7])), call());
      assertEquals(bits(result.stored), "11111");
      assertEquals(result.bytes, 500);
    },
  },
  {
    name: "storing an object again replaces it",
    async check(subject) {
      const { key, bytes } = sample(1, 1000);
      const versions: Sample[] = [1000, 1000, 10, 5000].map((size, n) => ({
        key,
        bytes: sampleBytes(100 + n, size),
      }));
      await subject.store([{ key, bytes }]);
      for (const version of versions) {
        assertNotEquals(version.bytes, bytes);
        await subject.store([version]);
        await subject.assertStored([version]);
      }
    },
  },
  {
    name: "accepts a key twice in one batch",
    async check(subject) {
      const [a, b] = [sample(1), sample(2)];
      await subject.store([a, b, a]);
      assertEquals(await subject.lookup([a.key, b.key, a.key]), "111");
      await subject.assertStored([a, b, a]);
    },
  },
  {
    name: "accepts empty batches",
    async check(subject) {
      const { stored, bytes } = await subject.adapter.store([], call());
      assertEquals([stored.length, bytes], [0, 0]);
      assertEquals(await subject.lookup([]), "");
      assertEquals(await subject.lookup([], true), "");
      assertEquals((await subject.adapter.load([], call())).length, 0);
      const deletion = await subject.adapter.delete?.([], call());
      assertEquals([deletion?.deleted.length ?? 0, deletion?.bytes ?? 0], [0, 0]);
      subject.adapter.unlock?.([]);
      assertEquals(subject.errors, []);
    },
  },
];
