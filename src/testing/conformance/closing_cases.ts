import { assert } from "@std/assert";
import { objectOf, roomFor, sample, samples } from "./samples.ts";
import { areEqual, type SubjectCase } from "./subject.ts";

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
];
