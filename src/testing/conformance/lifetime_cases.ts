import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import type { ObjectKey, ObjectKeyFields } from "../../keys/object_key.ts";
import { adapterHelp } from "../../l2/adapter_config.ts";
import { sampleBytes, sampleKey, samples } from "./samples.ts";
import { bits, call, type SubjectCase } from "./subject.ts";

/** The module, its promises, and what outlives an adapter. */
export const lifetimeCases: readonly SubjectCase[] = [
  {
    name: "declares itself",
    check({ module }) {
      assertMatch(module.type, /^[a-z][a-z0-9_]*$/);
      assertMatch(module.summary, /\S/);
      for (const [key, { help }] of Object.entries(module.config)) {
        assertMatch(key, /^[a-z][a-z0-9_]*$/);
        assertMatch(help, /\S/, `help of ${key}`);
        assert(adapterHelp(module).includes(key));
      }
    },
  },
  {
    name: "declares what it promises",
    check({ adapter, module }) {
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
  },
  {
    name: "another adapter with the same configuration sees the objects, where that is promised",
    async check(subject) {
      if (!subject.promises.shared) return;
      const given = samples(3);
      await using other = await subject.openAnother();
      await subject.store(given);
      await subject.assertHeld(given, other);
    },
  },
  {
    name: "objects survive a restart, where that is promised",
    async check(subject) {
      const given = samples(3);
      await subject.store(given);
      const isDurable = subject.promises.durable;
      await subject.restart();
      if (isDurable) await subject.assertHeld(given);
      else await subject.store(given);
    },
  },
  {
    name: "objects of any tenant, rank, group and length of name survive a restart, in all answers",
    async check(subject) {
      if (!subject.promises.durable) return;
      const fields: Partial<ObjectKeyFields>[] = [
        {},
        { cacheSalt: "tenant" },
        { cacheSalt: "a b" },
        { kvRank: 0x01020003 },
        { objectGroup: 3 },
        { model: "x".repeat(256), cacheSalt: "s".repeat(128), objectGroup: 1 },
      ];
      /** An adapter may list by names of files, which are shorter than this key. */
      const isLong = ({ model }: ObjectKey): boolean => model.length > 100;
      const given = fields.map((each, n) => ({
        key: sampleKey(n, each),
        bytes: sampleBytes(n, 1000 + n),
      }));
      const keys = given.map(({ key }) => key);
      await subject.store(given);
      const before = await subject.adapter.usage?.(call());
      await subject.restart();
      const { adapter } = subject;
      assertEquals(await subject.lookup(keys), "1".repeat(keys.length), "found");
      await subject.assertHeld(given);
      const usage = await adapter.usage?.(call());
      assertEquals(usage?.objectCount, before?.objectCount, "objects counted");
      assertEquals(usage?.usedBytes, before?.usedBytes, "bytes counted");
      const listed = (await Array.fromAsync(adapter.list?.(call()) ?? [])).map(({ key }) => key);
      if (adapter.list !== undefined) {
        const ids = (some: readonly ObjectKey[]) =>
          some.filter((key) => !isLong(key)).map(({ id }) => id);
        assertEquals(ids(listed).sort(), ids(keys).sort(), "listed");
      }
      const removal = await adapter.delete?.(keys, call());
      if (removal === undefined) return;
      assertEquals(bits(removal.deleted), "1".repeat(keys.length), "removed");
      assertGreater(removal.bytes, 0, "bytes that this frees");
      assertEquals(
        await subject.lookup(keys),
        "0".repeat(keys.length),
        "found after all are removed",
      );
    },
  },
  {
    name: "closes without having been used",
    check({ errors }) {
      assertEquals(errors, []);
    },
  },
];
