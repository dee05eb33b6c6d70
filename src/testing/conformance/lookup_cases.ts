import { assert, assertEquals } from "@std/assert";
import { isFilled, keysOf, loadTarget, sample, sampleKey, samples, targetOf } from "./samples.ts";
import { assertFilled, bits, call, type Cases } from "./subject.ts";

/** Long enough to span several windows of adapters that look up in windows. */
const CHAIN_LENGTH = 130;

/** Cases about lookups and loads: a missing object is a clear bit, not an error. */
export const lookupCases: Cases = {
  async "lookup finds exactly the stored objects"(subject) {
    const given = samples(4);
    const keys = keysOf(given);
    assertEquals(await subject.lookup(keys), "0000");
    await subject.store([0, 2, 3].flatMap((i) => given[i] ?? []));
    assertEquals(await subject.lookup(keys), "1011");
    assertEquals(await subject.lookup(keys.toReversed()), "1101");
    assertEquals(subject.errors, []);
  },
  async "lookup of a chain finds the end of its prefix"(subject) {
    const given = samples(CHAIN_LENGTH, 64);
    const keys = keysOf(given);
    for (const end of [0, 1, 2, 63, 64, 65, 129, CHAIN_LENGTH]) {
      await subject.store(given.slice(0, end).filter((_, i) => i >= end - 65));
      const found = await subject.lookup(keys, true);
      assertEquals(found, "1".repeat(end) + "0".repeat(CHAIN_LENGTH - end), `end at ${end}`);
    }
    assertEquals(await subject.lookup([0, 1000, 1001].map((n) => sampleKey(n)), true), "100");
  },
  async "lookup of a chain claims a missing key at most once"(subject) {
    const given = samples(CHAIN_LENGTH, 64);
    const keys = keysOf(given);
    await subject.store(given);
    for (const gap of [0, 1, 63, 64, 65, 128, 129]) {
      const missing = { key: sampleKey(1000 + gap), bytes: new Uint8Array(64) };
      const chain = keys.with(gap, missing.key);
      const found = await subject.lookup(chain, true);
      assertEquals(found.slice(0, gap), "1".repeat(gap), `before a gap at ${gap}`);
      // An adapter may search for the end of the chain and notice a gap only when it loads the
      // key.
      if (found[gap] === "1") assertEquals(await subject.load(missing), null);
      const again = await subject.lookup(chain, true);
      assertEquals(again.slice(0, gap + 1), "1".repeat(gap) + "0", `at a gap at ${gap}`);
      await subject.store([missing]);
      assertEquals(await subject.lookup(chain, true), "1".repeat(CHAIN_LENGTH), "healed");
    }
  },
  async "lookup and delete answer for each of many keys"(subject) {
    const stored = new Set([0, 127, 128, 255, 256, 299, 511, 512, 519]);
    const keys = Array.from({ length: 520 }, (_, n) => sampleKey(n));
    const expected = keys.map((_, n) => stored.has(n) ? "1" : "0").join("");
    await subject.store([...stored].map((n) => sample(n, 64)));
    assertEquals(await subject.lookup(keys), expected);
    const removal = await subject.delete(keys);
    if (removal === undefined) return;
    assertEquals(removal[0], expected, "removed");
    assertEquals(await subject.lookup(keys), "0".repeat(keys.length), "found after the removal");
  },
  async "a lookup can be repeated and unlocked as often"(subject) {
    const given = samples(3);
    await subject.store(given);
    for (let i = 0; i < 3; i++) assertEquals(await subject.lock(given), given);
    for (let i = 0; i < 3; i++) subject.unlock(given);
    await subject.assertStored(given);
  },
  async "unlocking unknown or unlocked keys has no effect"(subject) {
    const given = sample(1);
    subject.adapter.unlock?.([given.key, sampleKey(2)]);
    await subject.store([given]);
    subject.unlock([given]);
    assertEquals(await subject.lookup([given.key]), "1");
    subject.unlock([given, given]);
    assertEquals(await subject.lookup([given.key]), "1");
    await subject.assertStored([given]);
  },
  async "load of a missing object is a miss"(subject) {
    assertEquals(await subject.load(sample(1)), null);
    assertEquals(subject.errors, [], "a miss is no failure");
  },
  async "load answers for each object of a mixed batch"(subject) {
    const given = samples(9, 777);
    await subject.store(given.filter((_, i) => i % 2 === 0));
    const targets = given.map(targetOf);
    const loaded = await subject.adapter.load(targets, call());
    assertEquals(bits(loaded), "101010101");
    assertFilled(loaded, targets, given);
  },
  async "a load of another length than the stored object is a miss"(subject) {
    const { key, bytes } = sample(1, 1000);
    await subject.store([{ key, bytes }]);
    for (const size of [1, 999, 1001, 5000]) {
      const wrong = { key, bytes: new Uint8Array(size) };
      assertEquals(await subject.load(wrong), null, `${size} bytes of 1000`);
    }
    await subject.assertStored([{ key, bytes }]);
  },
  async "an object of another length in a batch affects no other object"(subject) {
    const given = samples(3, 1000);
    await subject.store(given);
    const targets = given.map(({ key }, i) => loadTarget(key, i === 1 ? 1001 : 1000));
    assertEquals(bits(await subject.adapter.load(targets, call())), "101");
  },
  async "calls onLoaded only for objects whose parts are filled"(subject) {
    const given = samples(5, 70_000);
    await subject.store(given);
    const asked = given.toSpliced(2, 0, sample(99, 70_000));
    const targets = asked.map(targetOf);
    const reported: boolean[] = [];
    const onLoaded = (index: number): void => {
      reported.push(isFilled(targets[index], asked[index]));
    };
    const loaded = await subject.adapter.load(targets, { ...call(), onLoaded });
    assert(reported.every((isFilled) => isFilled), "objects reported before they were filled");
    assertEquals(loaded.popcount(), given.length);
  },
};
