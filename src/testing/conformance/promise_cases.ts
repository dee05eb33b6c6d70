import { assertEquals } from "@std/assert";
import type { AdapterCapabilities } from "../../adapter/contract.ts";
import { sample, version } from "./samples.ts";
import { call, type Cases } from "./subject.ts";

/** Largest object that is tested, in bytes. */
const MAX_TESTED_BYTES = 2 ** 26;

/** The capabilities that are set; `false` and `undefined` are equivalent. */
function setOnly(capabilities: AdapterCapabilities): Record<string, unknown> {
  const isSet = ([, value]: [string, unknown]): boolean => value !== undefined && value !== false;
  return Object.fromEntries(Object.entries(capabilities).filter(isSet));
}

/** Cases about declared capabilities. */
export const promiseCases: Cases = {
  "declares exactly the capabilities that its author claims"({ adapter, claims }) {
    if (claims === undefined) return;
    assertEquals(setOnly(adapter.capabilities), setOnly(claims));
  },
  async "accepts an object of its maximum size"(subject) {
    const { maxObjectBytes = Infinity } = subject.promises;
    if (maxObjectBytes > MAX_TESTED_BYTES) return;
    const given = sample(1, maxObjectBytes);
    await subject.store([given]);
    await subject.assertStored([given]);
  },
  async "if shared, another adapter with the same configuration sees replacements and removals"(
    subject,
  ) {
    if (!subject.promises.shared) return;
    const [first, second] = [version(0, 0, 5000), version(0, 1, 5000)];
    const gone = sample(1);
    await using other = await subject.openAnother();
    await subject.store([first, gone]);
    await subject.assertStored([first, gone], other);
    await subject.store([second]);
    await subject.assertStored([second], other);
    if (await subject.delete([gone.key]) === undefined) return;
    assertEquals(await subject.load(gone, other), null, "a removed object");
    // The other adapter may have remembered the object until a load missed it.
    const found = await other.lookupAndLock([gone.key], { ...call(), prefix: false });
    other.unlock?.(found.gather([gone.key]));
    assertEquals(found.test(0), false, "claims a removed object again after a miss");
  },
  async "replacements and removals survive a restart"(subject) {
    if (!subject.promises.durable) return;
    const [first, second] = [version(0, 0, 5000), version(0, 1, 5000)];
    const [gone, kept] = [sample(1), sample(2)];
    await subject.store([first, gone, kept]);
    await subject.store([second]);
    const removal = await subject.delete([gone.key]);
    await subject.restart();
    await subject.assertStored([second, kept]);
    if (removal !== undefined) assertEquals(await subject.load(gone), null, "a removed object");
  },
};
