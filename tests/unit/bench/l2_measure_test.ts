import { TRAILER_BYTES } from "../../../src/adapter/object_trailer.ts";
import { assert, assertEquals } from "@std/assert";
import { measure, type MeasureOptions } from "../../bench/l2/measure.ts";
import { KvtierTarget } from "../../bench/l2/kvtier_target.ts";
import { PlainTarget } from "../../bench/l2/plain_target.ts";
import type { LookupKind } from "../../bench/l2/row.ts";
import { median, percentile } from "../../bench/statistics.ts";
import { summarise } from "../../bench/l2/summary.ts";
import type { BenchTarget, Round } from "../../bench/l2/target.ts";
import { checkConfig } from "../../../src/l2/adapter_config.ts";
import { openAdapterRegistry } from "../../../src/known_adapters.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const SHAPE = { objectBytes: 4096, numKeys: 4, inFlight: 3 };
const OPTIONS: MeasureOptions = {
  rounds: 3,
  warmupRounds: 1,
  maxHitRate: 0,
  isVerified: true,
  operations: ["store", "lookup", "load"],
};

/** Keeps objects in memory; `spoil` changes what it loads. */
class MapTarget implements BenchTarget {
  readonly name: string;
  readonly lookupKinds = ["each"] as const;
  readonly held = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly rounds: Round[] = [];
  readonly #log: string[];
  readonly #spoil: (bytes: Uint8Array<ArrayBuffer>, index: number) => void;

  constructor(
    { name = "map", log = [], spoil = () => {} }: {
      name?: string;
      log?: string[];
      spoil?: (bytes: Uint8Array<ArrayBuffer>, index: number) => void;
    } = {},
  ) {
    this.name = name;
    this.#log = log;
    this.#spoil = spoil;
  }

  store(round: Round): Promise<number> {
    this.#log.push(this.name);
    this.rounds.push(round);
    round.keys.forEach(({ id }, i) => {
      assert(!this.held.has(id), "keys are fresh");
      this.held.set(id, round.buffers.sources[i]?.payload.slice() ?? new Uint8Array());
    });
    return Promise.resolve(round.keys.length);
  }

  lookup({ lookups }: Round, _how: LookupKind): Promise<number> {
    return Promise.resolve(lookups.filter(({ id }) => this.held.has(id)).length);
  }

  load({ keys, onLoaded }: Round): Promise<number> {
    keys.forEach(({ id }, i) => {
      const bytes = this.held.get(id)?.slice() ?? new Uint8Array();
      this.#spoil(bytes, i);
      onLoaded?.(i, bytes);
    });
    return Promise.resolve(keys.length);
  }

  clear(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

Deno.test("bench l2: percentiles are by nearest rank", () => {
  assertEquals(median([5, 1, 4, 2, 3]), 3);
  assertEquals(median([4, 1, 3, 2]), 2);
  assertEquals(percentile(Array.from({ length: 100 }, (_, i) => i + 1), 0.99), 99);
  assertEquals(percentile([7], 0.99), 7);
  assertEquals([percentile([1, 2, 3], 0), percentile([1, 2, 3], 1)], [1, 3]);
});

Deno.test("bench l2: each target runs once in every round, in orders that differ", async () => {
  const log: string[] = [];
  const targets = ["a", "b", "c"].map((name) => new MapTarget({ name, log }));
  await measure(targets, SHAPE, OPTIONS);
  const rounds = log.join("").match(/.../g) ?? [];
  assertEquals(rounds.map((round) => [...round].sort().join("")), Array(4).fill("abc"));
  const followers = new Set([...log.join("").matchAll(/(?=(a[bc]))/g)].map(([, pair]) => pair));
  assertEquals(followers, new Set(["ab", "ac"]));
});

Deno.test("bench l2: rounds to warm up are not counted", async () => {
  const { samples, failures } = await measure([new MapTarget()], SHAPE, OPTIONS);
  assertEquals(failures, []);
  assertEquals(samples.map(({ op, ms, done, of }) => [op, ms.length, done, of]), [
    ["store", 3, 36, 36],
    ["lookup", 3, 0, 36],
    ["load", 3, 36, 36],
  ]);
});

for (const [maxHitRate, hits] of [[0, 0], [0.3, 10], [0.5, 18], [1, 36]] as const) {
  Deno.test(`bench l2: of 36 lookups at most ${maxHitRate} hit, and come first`, async () => {
    const target = new MapTarget();
    const { samples, failures } = await measure([target], SHAPE, { ...OPTIONS, maxHitRate });
    assertEquals(failures, []);
    const lookup = samples.find(({ op }) => op === "lookup");
    assertEquals([lookup?.done, lookup?.of], [hits, 36]);
    for (const { keys, lookups } of target.rounds) {
      const present = new Set(keys.map(({ id }) => id));
      for (let call = 0; call < 3; call++) {
        const isHit = lookups.slice(4 * call, 4 * call + 4).map(({ id }) => present.has(id));
        assertEquals(isHit, isHit.toSorted((a, b) => Number(b) - Number(a)));
      }
    }
  });
}

Deno.test("bench l2: only the operation that is asked for is measured", async () => {
  for (const op of ["store", "lookup", "load"] as const) {
    const { samples } = await measure([new MapTarget()], SHAPE, { ...OPTIONS, operations: [op] });
    assertEquals(samples.map((one) => one.op), [op]);
  }
});

Deno.test("bench l2: verification notices one changed byte, and swapped objects", async () => {
  const flipped = new MapTarget({
    spoil: (bytes, i) => {
      if (i === 5) bytes[4095] = ~(bytes[4095] ?? 0);
    },
  });
  const { failures } = await measure([flipped], SHAPE, OPTIONS);
  assertEquals(failures, [
    "map, objects of 4096 bytes: verification: 1 of 12 objects differ",
  ]);
  const last = new Map<number, Uint8Array<ArrayBuffer>>();
  const swapped = new MapTarget({
    spoil: (bytes, i) => {
      last.set(i, bytes.slice());
      if (i % 2 === 1) bytes.set(last.get(i - 1) ?? []);
    },
  });
  const result = await measure([swapped], SHAPE, OPTIONS);
  assertEquals(result.failures, [
    "map, objects of 4096 bytes: verification: 6 of 12 objects differ",
  ]);
});

Deno.test("bench l2: bytes of another round are not what was stored", async () => {
  const first: Uint8Array<ArrayBuffer>[] = [];
  const stale = new MapTarget({
    spoil: (bytes, i) => {
      first[i] ??= bytes.slice();
      bytes.set(first[i]);
    },
  });
  const { failures } = await measure([stale], SHAPE, OPTIONS);
  assertEquals(failures.length, 1);
});

Deno.test("bench l2: a target that loads nothing fails behind one that does", async () => {
  class Loading extends MapTarget {
    override load({ keys, buffers: { loaded } }: Round): Promise<number> {
      keys.forEach(({ id }, i) => loaded[i]?.payload.set(this.held.get(id) ?? []));
      return Promise.resolve(keys.length);
    }
  }
  class Idle extends MapTarget {
    override load({ keys }: Round): Promise<number> {
      return Promise.resolve(keys.length);
    }
  }
  const options = { ...OPTIONS, rounds: 1, warmupRounds: 0 };
  const { failures } = await measure([new Loading(), new Idle({ name: "idle" })], SHAPE, options);
  assertEquals(failures, [
    "idle, objects of 4096 bytes: verification: 12 of 12 objects differ",
  ]);
});

Deno.test("bench l2: an operation that falls short is a failure", async () => {
  class Forgetful extends MapTarget {
    override store(round: Round): Promise<number> {
      return super.store(round).then((count) => count - 1);
    }
  }
  const options = { ...OPTIONS, rounds: 1, warmupRounds: 0 };
  const { failures } = await measure([new Forgetful()], SHAPE, options);
  assertEquals(failures, ["map, objects of 4096 bytes: store of 11 of 12 keys"]);
});

Deno.test("bench l2: the plain loop and the adapter keep what they are given", async () => {
  await using directory = await tempDirectory();
  const registry = await openAdapterRegistry({});
  const config = { type: "mock", "max_size_gb": 1, "mock_bandwidth_gb": 1000 };
  await using ours = await KvtierTarget.open(await checkConfig(registry, config));
  const targets = [ours, new PlainTarget(directory.path, 2)];
  const { samples, failures } = await measure(targets, SHAPE, { ...OPTIONS, maxHitRate: 0.5 });
  assertEquals(failures, []);
  assertEquals(samples.length, 4 + 3);
  const left = await Array.fromAsync(Deno.readDir(directory.path));
  assertEquals(left, []);
});

Deno.test("bench l2: an object's seal lies directly behind its payload, as in the cache's blocks", async () => {
  const target = new MapTarget();
  await measure([target], SHAPE, { ...OPTIONS, rounds: 1, warmupRounds: 0 });
  const buffers = target.rounds[0]?.buffers;
  assertEquals(buffers?.sources.length, 12);
  for (const room of [buffers?.sources, buffers?.loaded, buffers?.aligned]) {
    for (const { payload, parts } of room ?? []) {
      const [whole] = parts;
      assertEquals(parts.length, 1);
      assert(whole?.buffer === payload.buffer);
      assertEquals(whole?.byteOffset, payload.byteOffset);
      assertEquals(whole?.byteLength, payload.byteLength + TRAILER_BYTES);
    }
  }
});

Deno.test("bench l2: of several loops the fastest counts, for each operation", () => {
  const of = { done: 12, of: 12 };
  const [one, two, ours] = [
    new PlainTarget("", 1),
    new PlainTarget("", 2),
    new MapTarget({ name: "kvtier-map" }),
  ];
  const rows = summarise([
    { target: one, op: "store", ms: [4, 2, 9], ...of },
    { target: two, op: "store", ms: [3, 5, 6], ...of },
    { target: one, op: "load", ms: [2], ...of },
    { target: two, op: "load", ms: [1], ...of },
    { target: ours, op: "store", ms: [8, 8, 1], ...of },
    { target: ours, op: "load", ms: [2], ...of },
    { target: ours, op: "lookup", how: "each", ms: [2], ...of },
  ], SHAPE);
  const limit = rows.filter(({ target }) => target === "limit");
  assertEquals(limit.map(({ op, medianMs, concurrency }) => [op, medianMs, concurrency]), [
    ["store", 4, 1],
    ["load", 1, 2],
  ]);
  assertEquals(rows.filter(({ target }) => target !== "limit").map(({ ofLimit }) => ofLimit), [
    0.5,
    0.5,
    undefined,
  ]);
  assertEquals(rows.find(({ op, target }) => op === "store" && target !== "limit"), {
    target: "kvtier-map",
    objectBytes: 4096,
    keys: 12,
    op: "store",
    rounds: 3,
    medianMs: 8,
    minMs: 1,
    maxMs: 8,
    p99Ms: 8,
    gbps: 12 * 4096 / 8 / 1e6,
    usPerKey: 8000 / 12,
    success: of,
    ofLimit: 0.5,
  });
});
