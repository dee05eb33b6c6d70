import { assertEquals } from "@std/assert";
import type { AdapterCapabilities } from "../../l2/adapter.ts";
import { type Sample, sample, sampleBytes, sampleKey } from "./samples.ts";
import { call, type Subject, type SubjectCase } from "./subject.ts";

/** Largest object that is tried out, in bytes. */
const MOST_BYTES = 2 ** 26;

/** What is promised, without what is not: a flag that is not set says the same as none. */
function setOnly(capabilities: AdapterCapabilities): Record<string, unknown> {
  const isSet = ([, value]: [string, unknown]): boolean => value !== undefined && value !== false;
  return Object.fromEntries(Object.entries(capabilities).filter(isSet));
}

/** Versions of the object of key `n`, of one size. */
function versions(n: number): [Sample, Sample] {
  const [old, young] = [2 * n, 2 * n + 1].map((seed) => sampleBytes(1000 + seed, 5000));
  const key = sampleKey(n);
  return [{ key, bytes: old ?? new Uint8Array() }, { key, bytes: young ?? new Uint8Array() }];
}

async function remove({ adapter }: Subject, { key }: Sample): Promise<boolean> {
  return await adapter.delete?.([key], call()) !== undefined;
}

/** What an adapter promises beyond the contract. */
export const promiseCases: readonly SubjectCase[] = [
  {
    name: "declares exactly what its author claims",
    check({ adapter, claims }) {
      if (claims === undefined) return;
      assertEquals(setOnly(adapter.capabilities), setOnly(claims));
    },
  },
  {
    name: "takes an object as large as it says it does",
    async check(subject) {
      const { maxObjectBytes = Infinity } = subject.promises;
      if (maxObjectBytes > MOST_BYTES) return;
      const given = sample(1, maxObjectBytes);
      await subject.store([given]);
      await subject.assertHeld([given]);
    },
  },
  {
    name: "another adapter with the same configuration sees what is replaced and removed",
    async check(subject) {
      if (!subject.promises.shared) return;
      const [first, second] = versions(0);
      const [gone] = versions(1);
      await using other = await subject.openAnother();
      await subject.store([first, gone]);
      await subject.assertHeld([first, gone], other);
      await subject.store([second]);
      await subject.assertHeld([second], other);
      if (!await remove(subject, gone)) return;
      assertEquals(await subject.load(gone, other), null, "a removed object");
      // It may have remembered that the object was there, until it was asked to load it.
      const found = await other.lookupAndLock([gone.key], { ...call(), prefix: false });
      other.unlock?.(found.gather([gone.key]));
      assertEquals(found.test(0), false, "a removed object that was missed is not claimed again");
    },
  },
  {
    name: "what was replaced or removed stays so after a restart",
    async check(subject) {
      if (!subject.promises.durable) return;
      const [first, second] = versions(0);
      const [gone] = versions(1);
      const [kept] = versions(2);
      await subject.store([first, gone, kept]);
      await subject.store([second]);
      const isRemoved = await remove(subject, gone);
      await subject.restart();
      await subject.assertHeld([second, kept]);
      if (isRemoved) assertEquals(await subject.load(gone), null, "a removed object");
    },
  },
];
