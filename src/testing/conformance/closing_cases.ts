import { assert, fail } from "@std/assert";
import { deadline } from "@std/async";
import type { AdapterObject } from "../../adapter/contract.ts";
import { loadTarget, objectOf, type Sample, sample, samples } from "./samples.ts";
import { areEqual, call, type Subject, type SubjectCase } from "./subject.ts";

const targetOf = ({ key, bytes }: Sample): AdapterObject => loadTarget(key, bytes.byteLength);

/** Runs calls that may resolve or reject, but must not hang. */
async function allEnded(
  { deadlineMs }: Subject,
  calls: Readonly<Record<string, () => Promise<unknown> | undefined>>,
): Promise<void> {
  for (const [name, start] of Object.entries(calls)) {
    const call = (async () => await start())().catch(() => {});
    await deadline(call, deadlineMs / 4).catch(() => fail(`${name} hangs after closing`));
  }
}

/** Cases about closing, which may happen at any time. */
export const closingCases: readonly SubjectCase[] = [
  {
    name: "calls in flight during closing settle and leave no partial objects",
    async check(subject) {
      for (const isAborted of [true, false]) {
        const closing = new AbortController();
        await subject.restart(closing.signal);
        const { adapter } = subject;
        const existing = samples(10, 50_000);
        await subject.store(existing);
        const fresh = Array.from({ length: 10 }, (_, n) => sample(100 + n, 50_000));
        const caller = new AbortController();
        const { signal } = caller;
        const calls = [
          adapter.store(fresh.map(objectOf), { signal }),
          adapter.load(existing.map(({ key }) => loadTarget(key, 50_000)), { signal }),
          adapter.lookupAndLock(existing.map(({ key }) => key), { signal, prefix: true }),
          adapter.delete?.([], { signal }),
        ];
        const settled = Promise.allSettled(calls);
        closing.abort();
        if (isAborted) caller.abort();
        await subject[Symbol.asyncDispose]();
        await settled;
        await subject.restart();
        for (const each of [...existing, ...fresh]) {
          const bytes = await subject.load(each);
          assert(bytes === null || areEqual(bytes, each.bytes), `Wrong bytes: ${each.key.id}`);
        }
        await subject.store(fresh);
        await subject.assertStored(fresh);
      }
    },
  },
  {
    name: "can be closed twice, and later calls settle",
    async check(subject) {
      const { adapter } = subject;
      const given = samples(3);
      const keys = given.map(({ key }) => key);
      await subject.store(given);
      await adapter.lookupAndLock(keys, { ...call(), prefix: false });
      await subject[Symbol.asyncDispose]();
      await adapter[Symbol.asyncDispose]();
      adapter.unlock?.(keys);
      for (const signal of [call().signal, AbortSignal.abort()]) {
        await allEnded(subject, {
          store: () => adapter.store(given.map(objectOf), { signal }),
          lookupAndLock: () => adapter.lookupAndLock(keys, { signal, prefix: true }),
          load: () => adapter.load(given.map(targetOf), { signal }),
          delete: () => adapter.delete?.(keys, { signal }),
          list: () => Array.fromAsync(adapter.list?.({ signal }) ?? []),
          usage: () => adapter.usage?.({ signal }),
        });
      }
      adapter.reportStatus?.();
      await adapter[Symbol.asyncDispose]();
    },
  },
];
