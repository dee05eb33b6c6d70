import { assert, fail } from "@std/assert";
import { deadline } from "@std/async";
import type { AdapterObject } from "../../l2/adapter.ts";
import { objectOf, roomFor, type Sample, sample, samples } from "./samples.ts";
import { areEqual, call, type Subject, type SubjectCase } from "./subject.ts";

const roomOf = ({ key, bytes }: Sample): AdapterObject => roomFor(key, bytes.byteLength);

/** Waits for the end of calls that may resolve or reject, but must not hang. */
async function allEnded(
  { deadlineMs }: Subject,
  calls: Readonly<Record<string, () => Promise<unknown> | undefined>>,
): Promise<void> {
  for (const [name, start] of Object.entries(calls)) {
    const call = (async () => await start())().catch(() => {});
    await deadline(call, deadlineMs / 4).catch(() => fail(`${name} hangs after closing`));
  }
}

/** A cache closes whenever its user says so. */
export const closingCases: readonly SubjectCase[] = [
  {
    name: "calls that are under way when it closes settle, and leave nothing partial",
    async check(subject) {
      for (const isAborted of [true, false]) {
        const closing = new AbortController();
        await subject.restart(closing.signal);
        const { adapter } = subject;
        const held = samples(10, 50_000);
        await subject.store(held);
        const young = Array.from({ length: 10 }, (_, n) => sample(100 + n, 50_000));
        const caller = new AbortController();
        const { signal } = caller;
        const calls = [
          adapter.store(young.map(objectOf), { signal }),
          adapter.load(held.map(({ key }) => roomFor(key, 50_000)), { signal }),
          adapter.lookupAndLock(held.map(({ key }) => key), { signal, prefix: true }),
          adapter.delete?.([], { signal }),
        ];
        const settled = Promise.allSettled(calls);
        closing.abort();
        if (isAborted) caller.abort();
        await subject[Symbol.asyncDispose]();
        await settled;
        await subject.restart();
        for (const each of [...held, ...young]) {
          const bytes = await subject.load(each);
          assert(bytes === null || areEqual(bytes, each.bytes), `Wrong bytes: ${each.key.id}`);
        }
        await subject.store(young);
        await subject.assertHeld(young);
      }
    },
  },
  {
    name: "closes twice, and calls that come afterwards settle",
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
          load: () => adapter.load(given.map(roomOf), { signal }),
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
