import { assert } from "@std/assert";
import { type Sample, samples, version } from "./samples.ts";
import type { Cases } from "./subject.ts";

const OBJECT_BYTES = 200_003;

/** Cases about atomicity under concurrent calls. */
export const concurrencyCases: Cases = {
  async "concurrent stores and loads of the same keys return whole objects"(subject) {
    const of = (n: number, v: number): Sample => version(n, v, OBJECT_BYTES);
    const versions = [0, 1].map((n) => [of(n, 0), of(n, 1), of(n, 2), of(n, 3)] as const);
    for (let round = 0; round < 5; round++) {
      const work: Promise<unknown>[] = [];
      for (const v of [0, 1, 2, 3]) {
        work.push(subject.store(versions.flatMap((each) => each[v] ?? [])));
        for (const each of versions) work.push(subject.assertWhole(...each));
      }
      await Promise.all(work);
      for (const each of versions) assert(await subject.assertWhole(...each), "a miss");
    }
  },
  async "concurrent calls for different keys do not mix them up"(subject) {
    const given = samples(20, OBJECT_BYTES);
    await Promise.all(given.map((each) => subject.store([each])));
    await Promise.all(given.map((each) => subject.assertStored([each])));
  },
};
