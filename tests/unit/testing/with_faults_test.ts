import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { type Bitmap, concatParts, type L2Adapter } from "../../../src/adapter/contract.ts";
import {
  loadTarget,
  objectOf,
  type Sample,
  samples,
} from "../../../src/testing/conformance/samples.ts";
import {
  type FaultKind,
  type FaultRule,
  type FaultyAdapter,
  ManualClock,
  withFaults,
} from "../../../src/testing/mod.ts";
import { mapAdapter } from "../../support/adapters.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";

const BYTES = 6000;

/** What a test makes calls to. */
class Bench {
  readonly inner = new RecordingAdapter();
  readonly clock = new ManualClock();
  readonly adapter: FaultyAdapter;
  readonly caller = new AbortController();
  readonly given = samples(4, BYTES);

  constructor(...faults: FaultRule[]) {
    this.adapter = withFaults(this.inner, { faults, clock: this.clock, seed: 7 });
  }

  get keys() {
    return this.given.map(({ key }) => key);
  }

  get options() {
    return { signal: this.caller.signal, prefix: false };
  }

  store(): Promise<Bitmap> {
    return this.adapter.store(this.given.map(objectOf), this.options).then(({ stored }) => stored);
  }

  /** Loads everything; which objects are claimed to be there, and which have the right bytes. */
  async load(): Promise<
    { claimed: number[]; right: number[]; targets: Uint8Array[]; told: number[] }
  > {
    const targets = this.given.map(({ key }) => loadTarget(key, BYTES));
    const told: number[] = [];
    const isRight = (i: number): boolean =>
      same(concatParts(at(targets, i).parts), at(this.given, i));
    const loaded = await this.adapter.load(targets, {
      ...this.options,
      onLoaded: (i) => void (isRight(i) && told.push(i)),
    });
    const all = [...targets.keys()];
    return {
      claimed: all.filter((i) => loaded.test(i)),
      right: all.filter(isRight),
      targets: targets.map(({ parts }) => concatParts(parts)),
      told,
    };
  }

  /** The kinds of faults that befell a call, once for each time. */
  get injected(): FaultKind[] {
    const counts = Object.entries(this.adapter.injected) as [FaultKind, number][];
    return counts.flatMap(([kind, count]) => Array<FaultKind>(count).fill(kind));
  }
}

function same(a: Uint8Array, { bytes }: Sample): boolean {
  return a.length === bytes.length && a.every((byte, i) => byte === bytes[i]);
}

function at<T>(items: ArrayLike<T>, index: number): T {
  const item = items[index];
  assert(item !== undefined);
  return item;
}

/** Bits in which two arrays differ. */
function differingBits(a: Uint8Array, b: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < a.length; i++) {
    for (let bits = at(a, i) ^ at(b, i); bits !== 0; bits &= bits - 1) count++;
  }
  return count;
}

/** A call of each operation. */
const CALLS: Readonly<Record<string, (bench: Bench) => Promise<unknown>>> = {
  store: (bench) => bench.store(),
  lookup: ({ adapter, keys, options }) => adapter.lookupAndLock(keys, options),
  load: (bench) => bench.load(),
  delete: async ({ adapter, keys, options }) => await adapter.delete?.(keys, options),
};

/** How many calls an adapter got. */
function callsOf({ stores, lookups, loads, deletes }: RecordingAdapter): number {
  return stores.length + lookups.length + loads.length + deletes.length;
}

Deno.test("withFaults: a failed call does nothing, the next one works", async () => {
  for (const [operation, call] of Object.entries(CALLS)) {
    const bench = new Bench({ kind: "error", calls: [0] });
    const message = `injected: call 0 of ${operation} fails`;
    await assertRejects(() => call(bench), Error, message);
    assertEquals(callsOf(bench.inner), 0);
    await call(bench);
    assertEquals([callsOf(bench.inner), bench.injected], [1, ["error"]]);
  }
});

Deno.test("withFaults: a delayed call starts after the delay, or ends when it is aborted", async () => {
  for (const call of Object.values(CALLS)) {
    const bench = new Bench({ kind: "delay", delayMs: 500 });
    const done = call(bench);
    await bench.clock.advance(499);
    assertEquals(callsOf(bench.inner), 0);
    await bench.clock.advance(1);
    await done;
    assertEquals([callsOf(bench.inner), bench.clock.pendingTimers], [1, 0]);

    const second = call(bench);
    bench.caller.abort();
    await second;
    assertEquals([bench.clock.pendingTimers, bench.injected], [0, ["delay", "delay"]]);
  }
});

Deno.test("withFaults: a call hangs until it is released", async () => {
  for (const call of Object.values(CALLS)) {
    const bench = new Bench({ kind: "hang", calls: [0] });
    const done = call(bench);
    await bench.clock.advance(1e9);
    assertEquals([callsOf(bench.inner), bench.adapter.hanging], [0, 1]);
    bench.adapter.release();
    await done;
    assertEquals([callsOf(bench.inner), bench.adapter.hanging], [1, 0]);
    assertEquals([bench.injected, bench.clock.pendingTimers], [["hang"], 0]);
  }
});

Deno.test("withFaults: a call hangs until it is aborted or the adapter closes", async () => {
  for (const call of Object.values(CALLS)) {
    const bench = new Bench({ kind: "hang" });
    const first = call(bench);
    const reason = new Error("enough");
    bench.caller.abort(reason);
    assertEquals(await assertRejects(() => first), reason);
    await assertRejects(() => call(bench), Error, "enough");
    assertEquals([callsOf(bench.inner), bench.adapter.hanging], [0, 0]);

    const other = new Bench({ kind: "hang" });
    const second = call(other);
    const rejected = assertRejects(() => second, Error, "closed");
    await other.adapter[Symbol.asyncDispose]();
    await rejected;
    assertEquals([other.inner.isDisposed, callsOf(other.inner)], [true, 0]);
  }
});

Deno.test("withFaults: closing ends a delay, and the adapter is not used afterwards", async () => {
  for (const call of Object.values(CALLS)) {
    const bench = new Bench({ kind: "delay", delayMs: 500 });
    const done = call(bench);
    const rejected = assertRejects(() => done, Error, "closed");
    await bench.adapter[Symbol.asyncDispose]();
    await rejected;
    assertEquals([bench.clock.pendingTimers, callsOf(bench.inner)], [0, 0]);
  }
});

Deno.test("withFaults: a load is damaged in one bit of one object, also at onLoaded", async () => {
  const bench = new Bench({ kind: "corrupt", operations: ["load"] });
  bench.inner.load = loadAndTell(bench.inner);
  await bench.store();
  const { claimed, right, targets, told } = await bench.load();
  assertEquals([claimed, right.length], [[0, 1, 2, 3], 3]);
  assertEquals(told, right, "what is damaged is damaged before anybody is told");
  const bits = targets.map((bytes, i) => differingBits(bytes, at(bench.given, i).bytes));
  assertEquals(bits.toSorted(), [0, 0, 0, 1]);
  assertEquals(bench.injected, ["corrupt"]);
  assertEquals(
    [...bench.inner.held.values()].every((bytes, i) => same(bytes, at(bench.given, i))),
    true,
  );
});

Deno.test("withFaults: over many loads all objects and all of their bytes are damaged", async () => {
  const bench = new Bench({ kind: "corrupt", operations: ["load"] });
  await bench.store();
  const places = new Set<string>();
  for (let n = 0; n < 200; n++) {
    const { targets } = await bench.load();
    for (const [i, bytes] of targets.entries()) {
      const place = bytes.findIndex((byte, j) => byte !== at(bench.given, i).bytes[j]);
      if (place >= 0) places.add(`${i}:${Math.floor(4 * place / BYTES)}`);
    }
  }
  assertEquals([places.size, bench.adapter.injected.corrupt], [16, 200]);
});

Deno.test("withFaults: stores damage a copy", async () => {
  const bench = new Bench({ kind: "corrupt", operations: ["store"] });
  const objects = bench.given.map(objectOf);
  const { stored } = await bench.adapter.store(objects, bench.options);
  assertEquals(stored.popcount(), 4);
  assert(objects.every(({ parts }, i) => same(concatParts(parts), at(bench.given, i))));
  const held = bench.given.map(({ key, bytes }) =>
    differingBits(bench.inner.held.get(key.id) ?? new Uint8Array(), bytes)
  );
  assertEquals([held.toSorted(), bench.injected], [[0, 0, 0, 1], ["corrupt"]]);
});

Deno.test("withFaults: a short store keeps half of an object, which is a miss later", async () => {
  const bench = new Bench({ kind: "short", operations: ["store"] });
  assertEquals((await bench.store()).popcount(), 4);
  const sizes = bench.given.map(({ key }) => bench.inner.held.get(key.id)?.byteLength);
  assertEquals(sizes.toSorted(), [BYTES / 2, BYTES, BYTES, BYTES].toSorted());
  const { claimed, right } = await bench.load();
  assertEquals([claimed.length, right, bench.injected], [3, claimed, ["short"]]);
});

Deno.test("withFaults: a short load leaves the second half of an object as it was", async () => {
  const bench = new Bench({ kind: "short", operations: ["load"] });
  bench.inner.load = loadAndTell(bench.inner);
  await bench.store();
  const { claimed, right, targets, told } = await bench.load();
  assertEquals([claimed, right.length, told], [[0, 1, 2, 3], 3, right]);
  const short = at(claimed.filter((i) => !right.includes(i)), 0);
  const { bytes } = at(bench.given, short);
  const expected = bytes.map((byte, i) => i < BYTES / 2 ? byte : 0);
  assertEquals([targets[short], bench.injected], [expected, ["short"]]);
});

Deno.test("withFaults: a result of the wrong size has an extra bit and locks nothing", async () => {
  const bench = new Bench({ kind: "wrong-size" });
  assertEquals((await bench.store()).length, 5);
  const found = await bench.adapter.lookupAndLock(bench.keys, bench.options);
  assertEquals([found.length, found.popcount(), bench.inner.lockCount], [5, 4, 0]);
  const targets = bench.keys.map((key) => loadTarget(key, BYTES));
  assertEquals((await bench.adapter.load(targets, bench.options)).length, 5);
  assertEquals((await bench.adapter.delete?.(bench.keys, bench.options))?.deleted.length, 5);
  assertEquals(bench.injected, Array(4).fill("wrong-size"));
});

Deno.test("withFaults: a load returns the bytes of another key", async () => {
  const bench = new Bench({ kind: "wrong-key" });
  const empty = await bench.load();
  assertEquals([empty.claimed, bench.injected], [[], []], "nothing was seen yet");
  await bench.store();
  const { claimed, right, targets } = await bench.load();
  assertEquals([claimed, right.length, bench.injected], [[0, 1, 2, 3], 3, ["wrong-key"]]);
  const wrong = at(claimed.filter((i) => !right.includes(i)), 0);
  const sources = bench.given.findIndex((each) => same(at(targets, wrong), each));
  assert(sources >= 0 && sources !== wrong, "whole bytes of another object");
});

Deno.test("withFaults: missing objects and empty calls are not damaged", async () => {
  const faults = ["corrupt", "short", "wrong-key"] as const;
  const bench = new Bench(...faults.map((kind) => ({ kind })));
  const { claimed } = await bench.load();
  await bench.adapter.load([], bench.options);
  await bench.adapter.store([], bench.options);
  assertEquals([claimed, bench.injected], [[], []]);
});

Deno.test("withFaults: rates are determined by the seed alone", async () => {
  const failures = async (seed: number): Promise<number[]> => {
    const inner = new RecordingAdapter();
    const adapter = withFaults(inner, { seed, faults: [{ kind: "error", rate: 0.3 }] });
    const failed: number[] = [];
    for (let n = 0; n < 100; n++) {
      const lookup = adapter.lookupAndLock([], {
        signal: new AbortController().signal,
        prefix: true,
      });
      await lookup.catch(() => failed.push(n));
    }
    assertEquals(adapter.injected.error, failed.length);
    return failed;
  };
  const [first, again, other] = [await failures(1), await failures(1), await failures(2)];
  assertEquals(first, again);
  assert(first.join() !== other.join());
});

Deno.test("withFaults has the methods and capabilities of the adapter", () => {
  const inner = new RecordingAdapter();
  const adapter = withFaults(inner, { faults: [] });
  assertInstanceOf(adapter.delete, Function);
  assertInstanceOf(adapter.list, Function);
  assertEquals([adapter.usage, adapter.reportStatus], [undefined, undefined]);
  assertEquals(adapter.capabilities, inner.capabilities);
  const poor = mapAdapter();
  assertEquals(withFaults(poor, { faults: [] }).delete, undefined);
});

/** A load that tells of each object as soon as it is filled. */
function loadAndTell(inner: RecordingAdapter): L2Adapter["load"] {
  const load = inner.load.bind(inner);
  return async (objects, options) => {
    const loaded = await load(objects, options);
    for (let i = 0; i < objects.length; i++) if (loaded.test(i)) options.onLoaded?.(i);
    return loaded;
  };
}
