import { assert, assertEquals } from "@std/assert";
import type { ObjectKey } from "../../keys/object_key.ts";
import type { ListedObject } from "../../adapter/contract.ts";
import { acceptsShortObjects } from "../../l2/adapter_answers.ts";
import {
  areGuardsIntact,
  bytesOf,
  loadTarget,
  sample,
  sampleBytes,
  sampleKey,
  samples,
} from "./samples.ts";
import { areEqual, bits, call, type Subject, type SubjectCase } from "./subject.ts";

async function listed(subject: Subject, model?: string): Promise<Map<string, number>> {
  const options = model === undefined ? call() : { ...call(), model };
  const objects: ListedObject[] = await Array.fromAsync(subject.adapter.list?.(options) ?? []);
  const sizes = new Map(objects.map(({ key, byteLength }) => [key.id, byteLength]));
  assertEquals(sizes.size, objects.length, "an object is listed once");
  return sizes;
}

/** Deletes objects and returns the result as a string of bits, and the number of freed bytes. */
async function deletion(
  { adapter }: Subject,
  keys: readonly ObjectKey[],
): Promise<[deleted: string, bytes: number]> {
  const result = await adapter.delete?.(keys, call());
  assert(result !== undefined);
  return [bits(result.deleted), result.bytes];
}

async function deleted(subject: Subject, keys: readonly ObjectKey[]): Promise<string> {
  const [bits] = await deletion(subject, keys);
  return bits;
}

/** Cases about optional methods; each passes if the adapter does not have the method. */
export const optionalCases: readonly SubjectCase[] = [
  {
    name: "delete removes objects, reports them and their bytes, and can be repeated",
    async check(subject) {
      if (subject.adapter.delete === undefined) return;
      const given = Array.from({ length: 4 }, (_, n) => sample(n, 100 + n));
      const [a, b, c, d] = given.map(({ key }) => key);
      assert(a !== undefined && b !== undefined && c !== undefined && d !== undefined);
      await subject.store(given.slice(0, 3));
      assertEquals(await deletion(subject, [a, d, c]), ["101", 202]);
      assertEquals(await subject.lookup([a, b, c, d]), "0100");
      assertEquals(await subject.load(sample(0)), null);
      assertEquals(await deletion(subject, [a, c]), ["00", 0]);
      await subject.assertStored(given.slice(1, 2));
      assertEquals(subject.errors, [], "a missing object is no failure");
    },
  },
  {
    name: "a deleted object can be stored again",
    async check(subject) {
      if (subject.adapter.delete === undefined) return;
      const { key } = sample(1);
      for (const seed of [1, 2, 3]) {
        const given = { key, bytes: sampleBytes(seed, 100 * seed) };
        await subject.store([given]);
        await subject.assertStored([given]);
        assertEquals(await deletion(subject, [key]), ["1", 100 * seed]);
        assertEquals(await subject.lookup([key]), "0");
      }
    },
  },
  {
    name: "delete of a locked object either removes it or leaves it whole",
    async check(subject) {
      if (subject.adapter.delete === undefined) return;
      const given = sample(1);
      await subject.store([given]);
      await subject.adapter.lookupAndLock([given.key], { ...call(), prefix: false });
      const isDeleted = await deleted(subject, [given.key]) === "1";
      if (isDeleted) assertEquals(await subject.load(given), null);
      else await subject.assertStored([given]);
      subject.adapter.unlock?.([given.key]);
      assertEquals(await deleted(subject, [given.key]), isDeleted ? "0" : "1");
      assertEquals(await subject.load(given), null);
    },
  },
  {
    name: "fills the start of larger parts if declared and requested",
    async check(subject) {
      const { adapter } = subject;
      if (!acceptsShortObjects(adapter.capabilities)) return;
      const given = [sample(0, 1000), sample(1, 70_000), sample(2, 4096)];
      await subject.store(given);
      const targets = given.map(({ key }, n) => loadTarget(key, n === 1 ? 70_000 : 72_000));
      const missing = loadTarget(sampleKey(3), 1000);
      const tooSmall = loadTarget(sampleKey(1), 69_999);
      const options = { ...call(), allowShorter: true };
      const loaded = await adapter.load([...targets, missing, tooSmall], options);
      assertEquals(bits(loaded), "11100");
      for (const [n, { bytes }] of given.entries()) {
        const target = targets[n];
        assert(target !== undefined && areGuardsIntact(target));
        assert(areEqual(bytesOf(target).subarray(0, bytes.byteLength), bytes), `object ${n}`);
      }
      assertEquals(bits(await adapter.load(targets, call())), "010", "without allowShorter");
    },
  },
  {
    name: "list returns each object once with its size, and filters by model",
    async check(subject) {
      if (subject.adapter.list === undefined) return;
      assertEquals(await listed(subject), new Map());
      const given = Array.from({ length: 20 }, (_, n) => {
        const model = n % 2 === 0 ? "even/model" : "odd/model";
        return { key: sampleKey(n, { model }), bytes: sampleBytes(n, 10 + n) };
      });
      await subject.store(given);
      const sizes = given.map(({ key, bytes }) => [key.id, bytes.byteLength] as const);
      assertEquals(await listed(subject), new Map(sizes));
      const isEven = (_: unknown, n: number): boolean => n % 2 === 0;
      assertEquals(await listed(subject, "even/model"), new Map(sizes.filter(isEven)));
      assertEquals(await listed(subject, "third/model"), new Map());
    },
  },
  {
    name: "list by model compares whole names",
    async check(subject) {
      if (subject.adapter.list === undefined) return;
      const models = [
        "llama",
        "llama-2",
        "llama/2",
        "Llama",
        "lla",
        "org/llama",
        "lla*",
      ];
      const given = models.map((model, n) => ({
        key: sampleKey(n, { model }),
        bytes: sampleBytes(n, 100),
      }));
      await subject.store(given);
      for (const { key } of given) {
        assertEquals([...(await listed(subject, key.model)).keys()], [key.id], key.model);
      }
    },
  },
  {
    name: "list does not return deleted objects",
    async check(subject) {
      if (subject.adapter.list === undefined || subject.adapter.delete === undefined) return;
      await subject.store(samples(2));
      await deleted(subject, [sampleKey(0)]);
      assertEquals([...(await listed(subject)).keys()], [sampleKey(1).id]);
    },
  },
  {
    name: "usage counts objects and their bytes",
    async check(subject) {
      const usage = () => subject.adapter.usage?.(call());
      const empty = await usage();
      if (empty === undefined) return;
      assertEquals(empty.objectCount, 0);
      await subject.store(samples(3, 1000));
      const full = await usage();
      assert(full !== undefined);
      assertEquals(full.objectCount, 3);
      assert(full.usedBytes > empty.usedBytes, "bytes used by objects");
      assert(full.usedBytes <= (full.capacityBytes ?? Infinity), "bytes beyond the capacity");
      await subject.store(samples(3, 1000));
      assertEquals(await usage(), full, "after the same objects again");
      if (subject.adapter.delete === undefined) return;
      await deleted(subject, [sampleKey(0)]);
      const less = await usage();
      assertEquals(less?.objectCount, 2);
      assert((less?.usedBytes ?? 0) < full.usedBytes, "bytes used after a removal");
    },
  },
  {
    name: "reports its status as JSON",
    async check(subject) {
      await subject.store(samples(2));
      const status = subject.adapter.reportStatus?.() ?? {};
      assertJson(status, "status");
      assert(!Array.isArray(status), "an object with names");
    },
  },
];

function assertJson(value: unknown, path: string): void {
  if (value === null || value === undefined) return;
  if (typeof value === "object") {
    for (const [name, part] of Object.entries(value)) assertJson(part, `${path}.${name}`);
    JSON.stringify(value);
    return;
  }
  const isPlain = typeof value === "string" || typeof value === "boolean" ||
    (typeof value === "number" && Number.isFinite(value));
  assert(isPlain, `${path} must be JSON: received ${typeof value} ${String(value)}`);
}
