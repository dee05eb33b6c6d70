import { assert, assertEquals, assertMatch } from "@std/assert";
import type { ListedObject } from "../../adapter/contract.ts";
import { acceptsShortObjects } from "../../l2/adapter_answers.ts";
import {
  areEqual,
  areGuardsIntact,
  bytesOf,
  keysOf,
  loadTarget,
  sample,
  sampleBytes,
  sampleKey,
  samples,
} from "./samples.ts";
import { bits, call, type Cases, type Subject, turns } from "./subject.ts";

async function listed(subject: Subject, model?: string): Promise<Map<string, number>> {
  const options = model === undefined ? call() : { ...call(), model };
  const objects: ListedObject[] = await Array.fromAsync(subject.adapter.list?.(options) ?? []);
  const sizes = new Map(objects.map(({ key, byteLength }) => [key.id, byteLength]));
  assertEquals(sizes.size, objects.length, "an object is listed once");
  return sizes;
}

/** Cases about optional methods; each passes if the adapter does not have the method. */
export const optionalCases: Cases = {
  async "delete removes objects, reports them and their bytes, and can be repeated"(subject) {
    if (subject.adapter.delete === undefined) return;
    const given = Array.from({ length: 4 }, (_, n) => sample(n, 100 + n));
    await subject.store(given.slice(0, 3));
    assertEquals(await subject.delete([0, 3, 2].map((n) => sampleKey(n))), ["101", 202]);
    assertEquals(await subject.lookup(keysOf(given)), "0100");
    assertEquals(await subject.load(sample(0)), null);
    assertEquals(await subject.delete([0, 2].map((n) => sampleKey(n))), ["00", 0]);
    await subject.assertStored(given.slice(1, 2));
    assertEquals(subject.errors, [], "a missing object is no failure");
  },
  async "a deleted object can be stored again"(subject) {
    if (subject.adapter.delete === undefined) return;
    const { key } = sample(1);
    for (const seed of [1, 2, 3]) {
      const given = { key, bytes: sampleBytes(seed, 100 * seed) };
      await subject.store([given]);
      await subject.assertStored([given]);
      assertEquals(await subject.delete([key]), ["1", 100 * seed]);
      assertEquals(await subject.lookup([key]), "0");
    }
  },
  async "delete of a locked object either removes it or leaves it whole"(subject) {
    if (subject.adapter.delete === undefined) return;
    const given = sample(1);
    await subject.store([given]);
    await subject.lock([given]);
    const [first] = await subject.delete([given.key]) ?? [];
    if (first === "1") assertEquals(await subject.load(given), null);
    else await subject.assertStored([given]);
    subject.unlock([given]);
    const [second] = await subject.delete([given.key]) ?? [];
    assertEquals(second, first === "1" ? "0" : "1");
    assertEquals(await subject.load(given), null);
  },
  async "fills the start of larger parts if declared and requested"(subject) {
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
  async "list returns each object once with its size, and filters by model"(subject) {
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
  async "list by model compares whole names"(subject) {
    if (subject.adapter.list === undefined) return;
    const models = ["llama", "llama-2", "llama/2", "Llama", "lla", "org/llama", "lla*"];
    const given = models.map((model, n) => ({
      key: sampleKey(n, { model }),
      bytes: sampleBytes(n, 100),
    }));
    await subject.store(given);
    for (const { key } of given) {
      assertEquals([...(await listed(subject, key.model)).keys()], [key.id], key.model);
    }
  },
  async "list does not return deleted objects"(subject) {
    await subject.store(samples(2));
    const removal = await subject.delete([sampleKey(0)]);
    if (subject.adapter.list === undefined || removal === undefined) return;
    assertEquals([...(await listed(subject)).keys()], [sampleKey(1).id]);
  },
  async "a listing can be ended early or aborted"(subject) {
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
  async "a listing is complete while listed objects are removed"(subject) {
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
  async "deleting a key twice in one call frees its bytes once"(subject) {
    const [a, b] = [sampleKey(0), sampleKey(1)];
    await subject.store(samples(2, 1000));
    const removal = await subject.delete([a, b, a]);
    if (removal === undefined) return;
    const [deleted, bytes] = removal;
    assertMatch(deleted, /^(110|011|111)$/);
    assertEquals(bytes, 2000);
    assertEquals(await subject.lookup([a, b]), "00");
  },
  async "usage counts objects and their bytes"(subject) {
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
    if (await subject.delete([sampleKey(0)]) === undefined) return;
    const less = await usage();
    assertEquals(less?.objectCount, 2);
    assert((less?.usedBytes ?? 0) < full.usedBytes, "bytes used after a removal");
  },
  async "touch has no other effect and ignores missing objects"(subject) {
    const { adapter } = subject;
    if (adapter.touch === undefined) return;
    const given = samples(3);
    const [first, never] = [sample(0), sample(7)];
    adapter.touch([]);
    adapter.touch([never.key, first.key]);
    await turns();
    const found = await subject.lookup([never.key, first.key]);
    assertEquals(found, "00", "objects that were never stored");
    await subject.store(given);
    adapter.touch([never.key, ...keysOf(given), first.key]);
    await turns();
    await subject.assertStored(given);
    const removal = await subject.delete([first.key]);
    if (removal !== undefined) {
      assertEquals(removal[0], "1", "touch does not lock");
      adapter.touch([first.key]);
      await turns();
      assertEquals(await subject.load(first), null, "touch does not restore a removed object");
    }
    await subject[Symbol.asyncDispose]();
    adapter.touch(keysOf(given));
    await turns();
    assertEquals(subject.errors, []);
  },
  async "reports its status as JSON"(subject) {
    await subject.store(samples(2));
    const status = subject.adapter.reportStatus?.() ?? {};
    assertJson(status, "status");
    assert(!Array.isArray(status), "an object with names");
  },
};

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
