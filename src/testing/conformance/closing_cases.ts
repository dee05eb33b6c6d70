import { fail } from "@std/assert";
import { deadline } from "@std/async";
import { keysOf, objectOf, samples, targetOf } from "./samples.ts";
import { call, type Cases, type Subject } from "./subject.ts";

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
export const closingCases: Cases = {
  async "calls in flight during closing settle and leave no partial objects"(subject) {
    for (const isAborted of [true, false]) {
      const closing = new AbortController();
      await subject.restart(closing.signal);
      const { adapter } = subject;
      const existing = samples(10, 50_000);
      await subject.store(existing);
      const fresh = samples(10, 50_000, 100);
      const caller = new AbortController();
      const { signal } = caller;
      const calls = [
        adapter.store(fresh.map(objectOf), { signal }),
        adapter.load(existing.map(targetOf), { signal }),
        adapter.lookupAndLock(keysOf(existing), { signal, prefix: true }),
        adapter.delete?.([], { signal }),
      ];
      const settled = Promise.allSettled(calls);
      closing.abort();
      if (isAborted) caller.abort();
      await subject[Symbol.asyncDispose]();
      await settled;
      await subject.restart();
      for (const each of [...existing, ...fresh]) await subject.assertWhole(each);
      await subject.store(fresh);
      await subject.assertStored(fresh);
    }
  },
  async "can be closed twice, and later calls settle"(subject) {
    const { adapter } = subject;
    const given = samples(3);
    const keys = keysOf(given);
    await subject.store(given);
    await subject.lock(given);
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
};
