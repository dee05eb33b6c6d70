import { assert, assertEquals, assertMatch } from "@std/assert";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { AdapterError, Bitmap, type L2Adapter } from "../../../src/adapter/contract.ts";
import type { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import type { CircuitName } from "../../../src/l2/adapter_status.ts";
import { mapAdapter } from "../../support/adapters.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";
import {
  answerWith,
  bound,
  BREAKER,
  empty,
  filledGuard,
  guardOf,
  hang,
  keys,
  layout,
  prefix,
  sealed,
  TIMEOUTS,
} from "./guarded.ts";

const OPERATIONS: readonly [CircuitName, keyof L2Adapter, (guard: AdapterGuard) => unknown][] = [
  ["store", "store", (guard) => guard.store(sealed)],
  ["lookup", "lookupAndLock", (guard) => guard.lookup(keys, prefix)],
  ["load", "load", (guard) => guard.load(empty())],
  ["delete", "delete", (guard) => guard.delete(keys)],
];

/** Captures the logs of adapters during a test. */
async function adapterLogs(): Promise<{ records: LogRecord[] } & AsyncDisposable> {
  const records: LogRecord[] = [];
  await configure({
    sinks: { memory: (record) => void records.push(record) },
    loggers: [
      { category: ["kvtier", "adapter"], sinks: ["memory"] },
      { category: ["logtape", "meta"], sinks: [] },
    ],
  });
  return { records, [Symbol.asyncDispose]: reset };
}

for (const [operation, method, run] of OPERATIONS) {
  Deno.test(`${operation}: after failures in a row it is skipped, then probed by one call`, async () => {
    let calls = 0;
    const fail = () => {
      calls++;
      return Promise.reject(new Error("no disk"));
    };
    const { guard, clock } = guardOf({ [method]: fail });
    for (let i = 0; i < 5; i++) await run(guard);
    assertEquals(calls, BREAKER.failures);
    const status = guard.reportStatus();
    assertEquals([status.failedCalls, status.skippedCalls], [3, 2]);
    assertEquals(status.circuits[operation], { state: "open", openCount: 1, retryInMs: 1000 });
    const others = OPERATIONS.map(([name]) => name).filter((name) => name !== operation);
    for (const name of others) assertEquals(status.circuits[name].state, "closed");
    assertEquals([status.isHealthy, guard.isStoring], [false, operation !== "store"]);
    assertMatch(
      status.problems.join(),
      new RegExp(`^${operation} is paused for another 1 s.*no disk$`),
    );
    await clock.advance(BREAKER.coolDownMs);
    assertMatch(guard.reportStatus().problems.join(), new RegExp(`^${operation} is retried`));
    for (let i = 0; i < 3; i++) await run(guard);
    assertEquals(calls, 4);
    assertEquals(guard.reportStatus().circuits[operation].retryInMs, 2 * BREAKER.coolDownMs);
  });

  Deno.test(`${operation}: the problem is named by what failed within it`, async () => {
    const error = new AdapterError({ adapter: "test", operation: "connect", cause: "no route" });
    const { guard } = guardOf({ [method]: () => Promise.reject(error) });
    for (let i = 0; i < BREAKER.failures; i++) await run(guard);
    assertMatch(guard.reportStatus().problems.join(), /paused.*connect failed: .*no route/);
  });

  Deno.test(`${operation}: a missed deadline opens the circuit at once`, async () => {
    const { guard, clock } = guardOf({ [method]: hang });
    const calling = run(guard);
    await clock.advance(TIMEOUTS.storeMs);
    await calling;
    const status = guard.reportStatus();
    assertEquals(status.circuits[operation].state, "open");
    assertEquals([status.hungCalls, status.callsInFlight], [1, 0]);
    await run(guard);
    assertEquals(guard.reportStatus().skippedCalls, 1);
    assertEquals(clock.pendingTimers, 0);
  });

  Deno.test(`${operation}: a call that never ends does not prevent a probe`, async () => {
    let calls = 0;
    const working = { ...mapAdapter(), delete: bound(new RecordingAdapter()).delete };
    const { guard, clock } = guardOf({
      ...working,
      [method]: (...args: unknown[]) => {
        const original = working[method as "store"] as (...args: unknown[]) => Promise<never>;
        return calls++ === 0 ? hang() : original(...args);
      },
    });
    run(guard);
    await clock.advance(TIMEOUTS.storeMs);
    await clock.advance(BREAKER.coolDownMs);
    await run(guard);
    const { circuits, hungCalls, isHealthy } = guard.reportStatus();
    assertEquals([circuits[operation].state, hungCalls, isHealthy], ["closed", 1, true]);
    await run(guard);
    assertEquals(calls, 3);
  });
}

Deno.test("a skipped call says so, costs no lock, and is not a failure", async () => {
  const adapter = new RecordingAdapter();
  adapter.seed(keys, layout);
  adapter.beforeStore = adapter.beforeLoad = adapter.beforeDelete = () => Promise.reject("down");
  const { guard } = guardOf(bound(adapter));
  for (let i = 0; i < 4; i++) assertEquals(String((await guard.lookup(keys, prefix)).done), "111");
  for (let i = 0; i < 3; i++) assertEquals((await guard.load(empty())).status, "failed");
  const skipped = await guard.load(empty());
  assertEquals([String(skipped.done), skipped.status, skipped.settled], [
    "000",
    "skipped",
    undefined,
  ]);
  assertEquals([adapter.lockCount, guard.lockedKeys], [0, 0]);
  for (let i = 0; i < 3; i++) {
    assertEquals((await guard.store(sealed)).status, "failed");
    assertEquals((await guard.delete(keys)).status, "failed");
  }
  assertEquals((await guard.store(sealed)).status, "skipped");
  const deletion = await guard.delete(keys);
  assertEquals([String(deletion.done), deletion.bytes, deletion.status], ["000", 0, "skipped"]);
  const { failedCalls, skippedCalls, failedStores, missedLoads } = guard.reportStatus();
  assertEquals([failedCalls, skippedCalls, failedStores, missedLoads], [9, 3, 12, 12]);
});

Deno.test("while loads are paused nothing is looked up; a load, not a lookup, is the probe", async () => {
  const adapter = new RecordingAdapter();
  adapter.seed(keys, layout);
  const { guard, clock } = guardOf(bound(adapter));
  adapter.beforeLoad = () => Promise.reject("down");
  for (let i = 0; i < 3; i++) {
    await guard.lookup(keys, prefix);
    await guard.load(empty());
  }
  assertEquals(adapter.lookups.length, 3);
  assertEquals(String((await guard.lookup(keys, prefix)).done), "000");
  assertEquals(adapter.lookups.length, 3, "not asked");
  await clock.advance(BREAKER.coolDownMs);
  assertEquals(String((await guard.lookup(keys, prefix)).done), "111");
  assertEquals(guard.reportStatus().circuits.load.state, "half-open");
  const { promise, resolve } = Promise.withResolvers<void>();
  adapter.beforeLoad = () => promise;
  const probe = guard.load(empty());
  assertEquals(
    String((await guard.lookup(keys, prefix)).done),
    "000",
    "another load would not go through",
  );
  resolve();
  assertEquals(String((await probe).done), "111");
  assertEquals(guard.reportStatus().circuits.load.state, "closed");
  assertEquals(String((await guard.lookup(keys, prefix)).done), "111");
});

Deno.test("an abandoned probe that fails later allows another one", async () => {
  let fail = (): void => {};
  let calls = 0;
  const { guard, clock } = await filledGuard({
    lookupAndLock: (_, { signal }) => {
      calls++;
      if (calls <= 3) return Promise.reject(new Error("down"));
      if (calls > 4) return Promise.resolve(new Bitmap(3, 3));
      const { promise, reject } = Promise.withResolvers<never>();
      fail = () => reject(signal.reason);
      return promise;
    },
  });
  for (let i = 0; i < 3; i++) await guard.lookup(keys, prefix);
  await clock.advance(BREAKER.coolDownMs);
  const caller = new AbortController();
  const probe = guard.lookup(keys, { prefix: true, signal: caller.signal });
  caller.abort();
  assertEquals(String((await probe).done), "000");
  fail();
  await clock.advance(0);
  assertEquals(guard.reportStatus().circuits.lookup.state, "half-open");
  assertEquals(String((await guard.lookup(keys, prefix)).done), "111");
  assertEquals(guard.reportStatus().circuits.lookup.state, "closed");
});

Deno.test("a caller that has left already takes no probe", async () => {
  let isBroken = true;
  const { guard, clock } = await filledGuard({
    lookupAndLock: () => isBroken ? Promise.reject("down") : Promise.resolve(new Bitmap(3, 3)),
  });
  for (let i = 0; i < 3; i++) await guard.lookup(keys, prefix);
  isBroken = false;
  await clock.advance(BREAKER.coolDownMs);
  await guard.lookup(keys, { prefix: true, signal: AbortSignal.abort() });
  assertEquals(String((await guard.lookup(keys, prefix)).done), "111");
});

Deno.test("with eight hanging calls, everything except closing is skipped until one ends", async () => {
  const hung: PromiseWithResolvers<never>[] = [];
  let disposed = 0;
  const { guard, clock } = await filledGuard({
    store: () => {
      const each = Promise.withResolvers<never>();
      hung.push(each);
      return each.promise;
    },
    usage: () => Promise.resolve({ usedBytes: 1, objectCount: 1 }),
    list: () => new RecordingAdapter().list({ signal: AbortSignal.abort() }),
    [Symbol.asyncDispose]: () => Promise.resolve(void disposed++),
  });
  for (let i = 0; i < 7; i++) {
    const storing = guard.store(sealed);
    await clock.advance(TIMEOUTS.storeMs);
    await storing;
    await clock.advance(BREAKER.maxCoolDownMs);
  }
  assertEquals([hung.length, String((await guard.lookup(keys, prefix)).done)], [7, "111"]);
  const storing = guard.store(sealed);
  await clock.advance(TIMEOUTS.storeMs);
  await storing;
  await clock.advance(BREAKER.maxCoolDownMs);
  assertEquals(String((await guard.lookup(keys, prefix)).done), "000");
  assertEquals((await guard.store(sealed)).status, "skipped");
  assertEquals((await guard.load(empty())).status, "skipped");
  assertEquals(await guard.usage(), undefined);
  assertEquals(await Array.fromAsync(guard.list()), []);
  const { hungCalls, skippedCalls, failedCalls, problems } = guard.reportStatus();
  assertEquals([hung.length, hungCalls, skippedCalls, failedCalls], [8, 8, 5, 8]);
  assertMatch(problems.at(-1) ?? "", /8 calls hang/);
  hung[3]?.reject(new Error("at last"));
  await clock.advance(0);
  assertEquals(String((await guard.lookup(keys, prefix)).done), "111");
  const probing = guard.store(sealed);
  await clock.advance(TIMEOUTS.storeMs);
  await probing;
  assertEquals(guard.reportStatus().hungCalls, 8);
  await guard.close();
  assertEquals(disposed, 1);
});

Deno.test("a store of no object counts as a failure, a partial one does not", async () => {
  let kept = 0;
  const { guard } = guardOf({
    store: ({ length }) => Promise.resolve({ stored: new Bitmap(length, kept), bytes: 0 }),
  });
  for (const [count, failures] of [[0, 1], [0, 2], [1, 0], [0, 1], [0, 2]] as const) {
    kept = count;
    await guard.store(sealed);
    assert(guard.reportStatus().isHealthy, `after ${failures} failures`);
  }
  await guard.store([]);
  kept = 0;
  for (let i = 0; i < 2; i++) await guard.store(sealed);
  assert(guard.reportStatus().isHealthy, "an empty store is a good one");
  await guard.store(sealed);
  const { isHealthy, failedCalls, problems } = guard.reportStatus();
  assertEquals([isHealthy, failedCalls], [false, 0]);
  assertMatch(problems.join(), /store is paused.*nothing was stored/);
});

Deno.test("objects that are missing are no failures", async () => {
  const nothing = { deleted: new Bitmap(3), bytes: 0 };
  const { guard } = guardOf({ delete: answerWith(nothing), load: answerWith(new Bitmap(3)) });
  for (let i = 0; i < 5; i++) {
    await guard.lookup(keys, prefix);
    await guard.load(empty());
    await guard.delete(keys);
  }
  const { isHealthy, skippedCalls, problems } = guard.reportStatus();
  assertEquals([isHealthy, skippedCalls, problems], [true, 0, []]);
});

Deno.test("three failures in a row are a problem also where a circuit opens later", async () => {
  const { guard } = guardOf({ store: () => Promise.reject(new Error("no disk")) }, { failures: 9 });
  for (const isHealthy of [true, true, false]) {
    await guard.store(sealed);
    assertEquals(guard.reportStatus().isHealthy, isHealthy);
  }
  const { circuits, problems } = guard.reportStatus();
  assertEquals(circuits.store.state, "closed");
  assertEquals(problems, ["store failed 3 times in a row: faulty: store failed: no disk"]);
});

Deno.test("a circuit that opens or closes is one line in the log, a skipped call is none", async () => {
  await using logs = await adapterLogs();
  let isBroken = true;
  const working = mapAdapter();
  const { guard, clock } = guardOf({
    store: (objects, options) =>
      isBroken ? Promise.reject(new Error("full")) : working.store(objects, options),
  });
  for (let i = 0; i < 10; i++) await guard.store(sealed);
  const lines = () => logs.records.map(({ message }) => message.join(""));
  const opened = lines().filter((line) => line.includes("is paused"));
  assertEquals(opened, [
    "faulty: store failed and is paused for 1.0 s: faulty: store failed: full",
  ]);
  assertEquals(lines().length, 3 + 1, "three failures and the opening");
  await clock.advance(1000);
  await guard.store(sealed);
  isBroken = false;
  await clock.advance(2000);
  await guard.store(sealed);
  assertEquals(lines().slice(4), ["faulty: store failed: full", "faulty: store works again"]);
});
