import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import type { ObjectKey, ObjectKeyFields } from "../../keys/object_key.ts";
import { adapterHelp } from "../../adapter/config.ts";
import { keysOf, sampleBytes, sampleKey, samples } from "./samples.ts";
import { call, type Cases } from "./subject.ts";

/** Cases about the module, its capabilities, and objects that outlive an adapter. */
export const lifetimeCases: Cases = {
  "declares itself"({ module }) {
    assertMatch(module.type, /^[a-z][a-z0-9_]*$/);
    assertMatch(module.summary, /\S/);
    for (const [key, { help }] of Object.entries(module.config)) {
      assertMatch(key, /^[a-z][a-z0-9_]*$/);
      assertMatch(help, /\S/, `help of ${key}`);
      assert(adapterHelp(module).includes(key));
    }
  },
  "declares valid capabilities"({ adapter, module }) {
    const { shared, durable, evicts, maxObjectBytes, preferredBytesInFlight } =
      adapter.capabilities;
    if (module.capabilities !== undefined) {
      assertEquals(durable ?? false, module.capabilities.durable ?? false, "durable");
      assertEquals(shared ?? false, module.capabilities.shared ?? false, "shared");
    }
    for (const flag of [shared, durable, evicts]) assert([true, false, undefined].includes(flag));
    for (const bytes of [maxObjectBytes, preferredBytesInFlight]) {
      assert(bytes === undefined || bytes > 0);
    }
  },
  async "if shared, another adapter with the same configuration sees the objects"(subject) {
    if (!subject.promises.shared) return;
    const given = samples(3);
    await using other = await subject.openAnother();
    await subject.store(given);
    await subject.assertStored(given, other);
  },
  async "if durable, objects survive a restart"(subject) {
    const given = samples(3);
    await subject.store(given);
    const isDurable = subject.promises.durable;
    await subject.restart();
    if (isDurable) await subject.assertStored(given);
    else await subject.store(given);
  },
  async "if durable, objects with all kinds of keys survive a restart in all methods"(subject) {
    if (!subject.promises.durable) return;
    const fields: Partial<ObjectKeyFields>[] = [
      {},
      { cacheSalt: "tenant" },
      { cacheSalt: "a b" },
      { kvRank: 0x01020003 },
      { objectGroup: 3 },
      { model: "x".repeat(256), cacheSalt: "s".repeat(128), objectGroup: 1 },
    ];
    // Listings may omit keys too long for a file name.
    const ids = (some: readonly ObjectKey[]): string[] =>
      some.filter(({ model }) => model.length <= 100).map(({ id }) => id).sort();
    const given = fields.map((each, n) => {
      return { key: sampleKey(n, each), bytes: sampleBytes(n, 1000 + n) };
    });
    const keys = keysOf(given);
    await subject.store(given);
    const before = await subject.adapter.usage?.(call());
    await subject.restart();
    const { adapter } = subject;
    assertEquals(await subject.lookup(keys), "1".repeat(keys.length), "found");
    await subject.assertStored(given);
    const usage = await adapter.usage?.(call());
    assertEquals(usage?.objectCount, before?.objectCount, "objects counted");
    assertEquals(usage?.usedBytes, before?.usedBytes, "bytes counted");
    const listed = (await Array.fromAsync(adapter.list?.(call()) ?? [])).map(({ key }) => key);
    if (adapter.list !== undefined) assertEquals(ids(listed), ids(keys), "listed");
    const removal = await subject.delete(keys);
    if (removal === undefined) return;
    assertEquals(removal[0], "1".repeat(keys.length), "removed");
    assertGreater(removal[1], 0, "freed bytes");
    assertEquals(await subject.lookup(keys), "0".repeat(keys.length), "found after removal");
  },
  "closes without having been used"({ errors }) {
    assertEquals(errors, []);
  },
};
