import { assertEquals } from "@std/assert";
import type { AdapterCapabilities } from "../../adapter/contract.ts";
import { type Sample, sample, sampleBytes, sampleKey } from "./samples.ts";
import { call, type Subject, type SubjectCase } from "./subject.ts";

/** Largest object that is tested, in bytes. */
const MAX_TESTED_BYTES = 2 ** 26;

/** The capabilities that are set; `false` and `undefined` are equivalent. */
function setOnly(capabilities: AdapterCapabilities): Record<string, unknown> {
  const isSet = ([, value]: [string, unknown]): boolean => value !== undefined && value !== false;
  return Object.fromEntries(Object.entries(capabilities).filter(isSet));
}

/** Two versions of the object of key `n`, of the same size. */
function versions(n: number): [Sample, Sample] {
  const [old, fresh] = [2 * n, 2 * n + 1].map((seed) => sampleBytes(1000 + seed, 5000));
  const key = sampleKey(n);
  return [{ key, bytes: old ?? new Uint8Array() }, { key, bytes: fresh ?? new Uint8Array() }];
}

async function remove({ adapter }: Subject, { key }: Sample): Promise<boolean> {
  return await adapter.delete?.([key], call()) !== undefined;
}

/** Cases about declared capabilities. */
export const promiseCases: readonly SubjectCase[] = [
  {
    name: "declares exactly the capabilities that its author claims",
    check({ adapter, claims }) {
      if (claims === undefined) return;
      assertEquals(setOnly(adapter.capabilities), setOnly(claims));
    },
  },
  {
    name: "accepts an object of its maximum size",
    async check(subject) {
      const { maxObjectBytes = Infinity } = subject.promises;
      if (maxObjectBytes > MAX_TESTED_BYTES) return;
      const given = sample(1, maxObjectBytes);
      await subject.store([given]);
      await subject.assertStored([given]);
    },
  },
  {
    name: "if shared, another adapter with the same configuration sees replacements and removals",
    async check(subject) {
      if (!subject.promises.shared) return;
      const [first, second] = versions(0);
      const [gone] = versions(1);
      await using other = await subject.openAnother();
      await subject.store([first, gone]);
      await subject.assertStored([first, gone], other);
      await subject.store([second]);
      await subject.assertStored([second], other);
      if (!await remove(subject, gone)) return;
      assertEquals(await subject.load(gone, other), null, "a removed object");
      // The other adapter may have remembered the object until a load missed it.
      const found = await other.lookupAndLock([gone.key], { ...call(), prefix: false });
      other.unlock?.(found.gather([gone.key]));
      assertEquals(found.test(0), false, "claims a removed object again after a miss");
    },
  },
  {
    name: "replacements and removals survive a restart",
    async check(subject) {
      if (!subject.promises.durable) return;
      const [first, second] = versions(0);
      const [gone] = versions(1);
      const [kept] = versions(2);
      await subject.store([first, gone, kept]);
      await subject.store([second]);
      const isRemoved = await remove(subject, gone);
      await subject.restart();
      await subject.assertStored([second, kept]);
      if (isRemoved) assertEquals(await subject.load(gone), null, "a removed object");
    },
  },
];
