import { assertEquals } from "@std/assert";
import { MIB } from "../../base/units.ts";
import { objectInParts, sample, samples, version } from "./samples.ts";
import { bits, call, type Cases } from "./subject.ts";

/** Cases about storing and loading. */
export const roundTripCases: Cases = {
  async "returns an object in one part"({ adapter }) {
    const given = sample(1);
    const { stored } = await adapter.store([objectInParts(given, [])], call());
    assertEquals(bits(stored), "1");
    const target = new Uint8Array(given.bytes.byteLength);
    const { byteLength } = target;
    const loaded = await adapter.load([{ key: given.key, parts: [target], byteLength }], call());
    assertEquals(bits(loaded), "1");
    assertEquals(target, given.bytes);
  },
  async "returns an object in parts of any size, including empty ones"(subject) {
    const given = sample(1, 10_007);
    const object = objectInParts(given, [0, 1, 1, 2, 4095, 8192, 10_007]);
    const { stored } = await subject.adapter.store([object], call());
    assertEquals(bits(stored), "1");
    await subject.assertStored([given]);
  },
  async "returns objects of odd sizes"(subject) {
    const sizes = [1, 2, 3, 63, 64, 65, 511, 513, 4095, 4096, 4097, 65_535, 65_537];
    const given = sizes.map((size, n) => sample(n, size));
    await subject.store(given);
    await subject.assertStored(given);
  },
  async "returns a batch of 300 objects of different sizes"(subject) {
    const given = Array.from({ length: 300 }, (_, n) => sample(n, 64 + n * 7));
    await subject.store(given);
    await subject.assertStored(given);
    await subject.assertStored(given.toReversed());
  },
  async "returns an object of several MiB"(subject) {
    const given = sample(1, 5 * MIB + 3);
    await subject.store([given]);
    await subject.assertStored([given]);
  },
  async "reports the objects and bytes that it stored"({ adapter }) {
    const given = samples(5, 100);
    const result = await adapter.store(given.map((each) => objectInParts(each, [7])), call());
    assertEquals(bits(result.stored), "11111");
    assertEquals(result.bytes, 500);
  },
  async "storing an object again replaces it"(subject) {
    for (const [v, size] of [1000, 1000, 1000, 10, 5000].entries()) {
      const given = version(1, v, size);
      await subject.store([given]);
      await subject.assertStored([given]);
    }
  },
  async "accepts a key twice in one batch"(subject) {
    const [a, b] = [sample(1), sample(2)];
    await subject.store([a, b, a]);
    assertEquals(await subject.lookup([a.key, b.key, a.key]), "111");
    await subject.assertStored([a, b, a]);
  },
  async "accepts empty batches"(subject) {
    const { stored, bytes } = await subject.adapter.store([], call());
    assertEquals([stored.length, bytes], [0, 0]);
    assertEquals(await subject.lookup([]), "");
    assertEquals(await subject.lookup([], true), "");
    assertEquals((await subject.adapter.load([], call())).length, 0);
    assertEquals(await subject.delete([]) ?? ["", 0], ["", 0]);
    subject.unlock([]);
    assertEquals(subject.errors, []);
  },
};
