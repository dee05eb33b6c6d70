import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { Bitmap } from "../../../src/adapter/contract.ts";
import type { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import type { GuardedAnswer } from "../../../src/l2/guarded_answer.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../src/l2/adapter_status.ts";
import { writeTrailer } from "../../../src/adapter/object_trailer.ts";
import { crc32 } from "../../../src/base/checksum.ts";
import type { ManualClock } from "../../../src/testing/manual_clock.ts";
import { mapAdapter } from "../../support/adapters.ts";
import { testBytes, testKey } from "../../support/objects.ts";
import { emptyObject, sealedObject } from "../../support/sealed_objects.ts";
import {
  answerWith as wrong,
  empty,
  filledGuard,
  guardOf,
  keys,
  layout,
  prefix,
  sealed,
  TIMEOUTS,
} from "./guarded.ts";

/** Broken adapters, and what the guard must report. */
const FAILURES: readonly [string, () => Promise<never>, string][] = [
  ["throws synchronously", () => {
    throw new Error("no disk");
  }, "no disk"],
  ["rejects", () => Promise.reject(new Error("no disk")), "no disk"],
  ["rejects with a string", () => Promise.reject("no disk"), "no disk"],
  ["rejects with nothing", () => Promise.reject(undefined), "undefined"],
  ["rejects with a symbol", () => Promise.reject(Symbol("odd")), "odd"],
  ["rejects with what has no text", () => Promise.reject(Object.create(null)), "[object Object]"],
  ["rejects with an error without a message", () => {
    return Promise.reject(Object.assign(new Error(), { message: 42 }));
  }, "42"],
];

for (const [what, fail, reason] of FAILURES) {
  Deno.test(`an adapter that ${what} costs misses and is counted`, async () => {
    const { guard, clock } = guardOf({
      store: fail,
      lookupAndLock: fail,
      load: fail,
      delete: fail,
      unlock: fail,
      [Symbol.asyncDispose]: fail,
    });
    assertEquals(String((await guard.store(sealed)).done), "000");
    assertEquals(String((await guard.lookup(keys, prefix)).done), "000");
    assertEquals(String((await guard.load(empty())).done), "000");
    assertEquals(String((await guard.delete(keys)).done), "000");
    guard.unlock(keys);
    await clock.advance(0);
    await guard.close();
    const status = guard.reportStatus();
    // Two unlocks: the load's and the caller's.
    assertEquals(status.failedCalls, 7);
    assertEquals(status.failedStores, 3);
    assertEquals(status.missedLoads, 3);
    assertEquals([status.lookedUpKeys, status.foundKeys], [3, 0]);
    assertEquals([status.timeouts, clock.pendingTimers], [0, 0]);
    assertStringIncludes(status.lastError ?? "", reason);
    assertStringIncludes(status.lastError ?? "", "faulty: ");
  });
}

const WRONG_ANSWERS: readonly [string, unknown][] = [
  ["nothing", undefined],
  ["null", null],
  ["a truth value", true],
  ["a list", [true, true, true]],
  ["too few bits", new Bitmap(2, 2)],
  ["too many bits", new Bitmap(4, 4)],
  ["bits that cannot be read", {
    length: 3,
    test: () => {
      throw new Error("no bits");
    },
  }],
];

for (const [what, answer] of WRONG_ANSWERS) {
  Deno.test(`an adapter that answers with ${what} costs misses and is counted`, async () => {
    const store = wrong({ stored: answer, bytes: 1 });
    const { guard, clock } = guardOf({
      store,
      lookupAndLock: wrong(answer),
      load: wrong(answer),
      delete: wrong({ deleted: answer, bytes: 1 }),
    });
    assertEquals(String((await guard.store(sealed)).done), "000");
    assertEquals(String((await guard.lookup(keys, prefix)).done), "000");
    assertEquals(String((await guard.load(empty())).done), "000");
    assertEquals(String((await guard.delete(keys)).done), "000");
    const { failedCalls, failedStores, missedLoads, storedBytes } = guard.reportStatus();
    assertEquals([failedCalls, failedStores, missedLoads, storedBytes], [4, 3, 3, 0]);
    assertEquals(clock.pendingTimers, 0);
  });
}

for (const result of [undefined, null, 3, {}, { stored: new Bitmap(3, 3) }]) {
  Deno.test(`an adapter that answers a store with ${JSON.stringify(result)} stored nothing`, async () => {
    const { guard } = guardOf({ store: wrong(result) });
    assertEquals(String((await guard.store(sealed)).done), "000");
    assertEquals(guard.reportStatus().failedStores, 3);
  });
}

for (const result of [undefined, null, 3, new Bitmap(3, 3), { deleted: new Bitmap(3, 3) }]) {
  Deno.test(`an adapter that answers a removal with ${JSON.stringify(result)} removed nothing`, async () => {
    const { guard } = guardOf({ delete: wrong(result) });
    const { done: deleted, bytes } = await guard.delete(keys);
    assertEquals([String(deleted), bytes, guard.reportStatus().failedCalls], ["000", 0, 1]);
  });
}

Deno.test("bytes that are no number never reach the counters", async () => {
  const { guard } = guardOf({ store: wrong({ stored: new Bitmap(3, 3), bytes: NaN }) });
  await guard.store(sealed);
  assertEquals(guard.reportStatus().storedBytes, 0);
});

Deno.test("bits of another copy of this package, with fewer methods, are understood", async () => {
  const foreign = { length: 3, test: (i: number) => i !== 1 };
  const { guard } = await filledGuard({
    store: wrong({ stored: foreign, bytes: 7 }),
    lookupAndLock: wrong(foreign),
  });
  assertEquals(String((await guard.store(sealed)).done), "101");
  assertEquals(String((await guard.lookup(keys, prefix)).done), "101");
  const { storedObjects, storedBytes, foundKeys } = guard.reportStatus();
  assertEquals([storedObjects, storedBytes, foundKeys], [2, 7, 2]);
});

Deno.test("bits that the adapter changes after its answer do not change the answer", async () => {
  const kept = new Bitmap(3, 1);
  const { guard } = guardOf({ lookupAndLock: wrong(kept) });
  const { done: found } = await guard.lookup(keys, prefix);
  kept.set(2);
  assertEquals(String(found), "100");
});

Deno.test("what is stored is loaded, verified and counted", async () => {
  const { guard, clock } = guardOf();
  const stored = await guard.store(sealed);
  assertEquals([String(stored.done), stored.settled], ["111", undefined]);
  assertEquals(String((await guard.lookup([...keys, testKey(9)], prefix)).done), "1110");
  const rooms = empty();
  const loaded = await guard.load(rooms);
  assertEquals([String(loaded.done), loaded.settled], ["111", undefined]);
  for (const [i, key] of keys.entries()) {
    assertEquals(rooms[i]?.parts[0], testBytes(key, layout.byteLength));
  }
  const bytes = sealed.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const closed = { state: "closed", openCount: 0, retryInMs: 0 } as const;
  assertEquals(guard.reportStatus(), {
    id: 7,
    type: "faulty",
    state: "active",
    isHealthy: true,
    problems: [],
    capabilities: {},
    circuits: { store: closed, lookup: closed, load: closed, delete: closed },
    storedObjects: 3,
    storedBytes: bytes,
    failedStores: 0,
    lookedUpKeys: 4,
    foundKeys: 3,
    loadedObjects: 3,
    loadedBytes: bytes,
    unverifiedLoads: 0,
    missedLoads: 0,
    damagedObjects: {},
    timeouts: 0,
    failedCalls: 0,
    skippedCalls: 0,
    lockedKeys: 0,
    callsInFlight: 0,
    hungCalls: 0,
    loadBytesPerMs: bytes * 1000,
    lookupMs: 0,
    lastError: undefined,
    details: {},
  });
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("an adapter that claims a load it did not do is not believed", async () => {
  const { guard } = await filledGuard({ load: wrong(new Bitmap(3, 3)) });
  assertEquals(String((await guard.load(empty())).done), "000");
  const { damagedObjects, missedLoads, loadedObjects } = guard.reportStatus();
  assertEquals([damagedObjects, missedLoads, loadedObjects], [{ magic: 3 }, 3, 0]);
});

Deno.test("an adapter that serves another key's bytes is not believed", async () => {
  const { guard } = await filledGuard({
    load: (objects) => {
      for (const { parts } of objects) {
        parts.forEach((part, i) => part.set(sealed[0]?.parts[i] ?? new Uint8Array()));
      }
      return Promise.resolve(new Bitmap(objects.length, objects.length));
    },
  });
  assertEquals(String((await guard.load(empty())).done), "100");
  assertEquals(guard.reportStatus().damagedObjects, { key: 2 });
});

Deno.test("an adapter that fills only part of an object is not believed", async () => {
  const { guard } = await filledGuard({
    load: (objects) => {
      for (const [n, { parts }] of objects.entries()) {
        parts.forEach((part, i) => part.set(sealed[n]?.parts[i] ?? new Uint8Array()));
        parts[0]?.fill(0, 200);
      }
      return Promise.resolve(new Bitmap(objects.length, objects.length));
    },
  });
  assertEquals(String((await guard.load(empty())).done), "000");
  assertEquals(guard.reportStatus().damagedObjects, { "payload-checksum": 3 });
});

Deno.test("an object that is found and then cannot be loaded is a counted miss, not a failure", async () => {
  const { guard } = await filledGuard({ load: wrong(new Bitmap(3)) });
  assertEquals(String((await guard.lookup(keys, prefix)).done), "111");
  for (let i = 0; i < 5; i++) assertEquals(String((await guard.load(empty())).done), "000");
  const { missedLoads, failedCalls, isHealthy } = guard.reportStatus();
  assertEquals([missedLoads, failedCalls, isHealthy], [15, 0, true]);
});

/** A guard whose adapter gives these bytes for `keys[0]`, and which keys it was told to delete. */
function servingGuard(
  parts: readonly Uint8Array[],
): { guard: AdapterGuard; deleted: ObjectKey[]; load: () => Promise<string> } {
  const deleted: ObjectKey[] = [];
  const { guard } = guardOf({
    load: (objects) => {
      for (const object of objects) object.parts.forEach((p, i) => p.set(parts[i] ?? p));
      return Promise.resolve(new Bitmap(objects.length, objects.length));
    },
    delete: (keys) => {
      deleted.push(...keys);
      return Promise.resolve({ deleted: new Bitmap(keys.length, keys.length), bytes: 1 });
    },
  });
  const load = async () => String((await guard.load(empty().slice(0, 1))).done);
  return { guard, deleted, load };
}

Deno.test("a damaged object is deleted", async () => {
  const parts = (sealed[0]?.parts ?? []).map((part) => part.slice());
  parts[0]?.fill(1, 7, 8);
  const { guard, deleted, load } = servingGuard(parts);
  assertEquals(await load(), "0");
  assertEquals(deleted.map(({ id }) => id), [keys[0]?.id]);
  assertEquals(guard.reportStatus().damagedObjects, { "payload-checksum": 1 });
});

Deno.test("a damaged object is deleted from an adapter that keeps what is locked", async () => {
  const locked = new Set<string>();
  const deleted: string[] = [];
  const { guard } = await filledGuard({
    lookupAndLock: (keys) => {
      for (const { id } of keys) locked.add(id);
      return Promise.resolve(new Bitmap(keys.length, keys.length));
    },
    unlock: (keys) => keys.forEach(({ id }) => locked.delete(id)),
    load: (objects) => Promise.resolve(new Bitmap(objects.length, objects.length)),
    delete: (keys) => {
      const free = Bitmap.from(keys, ({ id }) => !locked.has(id));
      deleted.push(...free.gather(keys).map(({ id }) => id));
      return Promise.resolve({ deleted: free, bytes: 1 });
    },
  });
  await guard.lookup(keys, prefix);
  assertEquals(String((await guard.load(empty())).done), "000");
  assertEquals(deleted, keys.map(({ id }) => id));
});

Deno.test("a load past its deadline keeps its locks until the adapter has ended", async () => {
  const late = Promise.withResolvers<Bitmap>();
  const unlocked: string[] = [];
  const { guard, clock } = await filledGuard({
    load: () => late.promise,
    unlock: (keys) => void unlocked.push(...keys.map(({ id }) => id)),
  });
  const loading = guard.load(empty());
  await clock.advance(TIMEOUTS.loadMs);
  const { done, settled } = await loading;
  assertEquals([String(done), unlocked.length], ["000", 0]);
  late.resolve(new Bitmap(3));
  await settled;
  await clock.advance(0);
  assertEquals(unlocked, keys.map(({ id }) => id));
});

Deno.test("an object of another layout is a miss, and is not deleted", async () => {
  const key = testKey(0);
  const other = { byteLength: layout.byteLength, fingerprint: new Uint8Array(8).fill(9) };
  const parts = [testBytes(key, layout.byteLength), new Uint8Array(64)];
  writeTrailer(key, other, parts);
  const { guard, deleted, load } = servingGuard(parts);
  assertEquals([await load(), deleted.length], ["0", 0]);
  assertEquals(guard.reportStatus().damagedObjects, { layout: 1 });
});

Deno.test("an object of a newer version is a miss, and is not deleted", async () => {
  const parts = (sealed[0]?.parts ?? []).map((part) => part.slice());
  const trailer = parts[1] ?? new Uint8Array();
  trailer[4] = 2;
  new DataView(trailer.buffer).setUint32(60, crc32(trailer.subarray(0, 60)), true);
  const { guard, deleted, load } = servingGuard(parts);
  assertEquals([await load(), deleted.length], ["0", 0]);
  assertEquals(guard.reportStatus().damagedObjects, { version: 1 });
});

Deno.test("a damaged object that cannot be deleted in time is still a miss", async () => {
  for (
    const remove of [() => Promise.reject(new Error("read-only")), () => new Promise(() => {})]
  ) {
    const { guard, clock } = guardOf({ load: wrong(new Bitmap(3, 3)), delete: remove as never });
    const loading = guard.load(empty());
    await clock.advance(0);
    await clock.advance(TIMEOUTS.deleteMs);
    assertEquals(String((await loading).done), "000");
    assertEquals(guard.reportStatus().failedCalls, 1);
  }
});

Deno.test("an adapter without optional methods is guarded too", async () => {
  const { guard } = await filledGuard({ load: wrong(new Bitmap(3, 3)) });
  assertEquals(String((await guard.delete(keys)).done), "000");
  assertEquals(String((await guard.load(empty())).done), "000");
  guard.unlock(keys);
  assertEquals(guard.reportStatus().failedCalls, 0);
});

for (
  const [operation, timeoutMs, run] of [
    ["store", TIMEOUTS.storeMs, (guard: AdapterGuard) => guard.store(sealed)],
    ["load", TIMEOUTS.loadMs, (guard: AdapterGuard) => guard.load(empty())],
    ["lookup", TIMEOUTS.lookupMs, (guard: AdapterGuard) => guard.lookup(keys, prefix)],
    ["delete", TIMEOUTS.deleteMs, (guard: AdapterGuard) => guard.delete(keys)],
  ] as const
) {
  Deno.test(`${operation}: an adapter that never settles costs its deadline and is told to stop`, async () => {
    let signal: AbortSignal | undefined;
    const hang = (_: unknown, options: { signal: AbortSignal }) => {
      signal = options.signal;
      return new Promise<never>(() => {});
    };
    const { guard, clock } = guardOf({
      store: hang,
      load: hang,
      lookupAndLock: hang,
      delete: hang,
    });
    let answer: GuardedAnswer | undefined;
    run(guard).then((given) => answer = given);
    await clock.advance(timeoutMs - 1);
    assertEquals([answer, signal?.aborted], [undefined, false]);
    await clock.advance(1);
    assertEquals([answer?.status, String(answer?.done)], ["timed-out", "000"]);
    assert(signal?.aborted);
    const { timeouts, failedCalls, lastError } = guard.reportStatus();
    assertEquals([timeouts, failedCalls, clock.pendingTimers], [1, 1, 0]);
    assertStringIncludes(lastError ?? "", `No answer within ${timeoutMs} ms`);
    assertStringIncludes(lastError ?? "", `${operation} failed`);
  });
}

for (const operation of ["store", "load"] as const) {
  Deno.test(`${operation}: buffers are out of circulation until a late adapter has settled`, async () => {
    for (const end of ["resolve", "reject"] as const) {
      const late = Promise.withResolvers<never>();
      const { guard, clock } = guardOf({ store: () => late.promise, load: () => late.promise });
      const calling = operation === "store" ? guard.store(sealed) : guard.load(empty());
      await clock.advance(1000);
      const { done, settled } = await calling;
      assertEquals(String(done), "000");
      let isSettled = false;
      settled?.then(() => isSettled = true);
      await clock.advance(1000);
      assertEquals([settled === undefined, isSettled], [false, false]);
      late[end](undefined as never);
      await clock.advance(0);
      assert(isSettled);
    }
  });
}

Deno.test("an answer after the deadline changes no counter", async () => {
  const late = Promise.withResolvers<never>();
  const { guard, clock } = guardOf({ load: () => late.promise });
  const loading = guard.load(empty());
  await clock.advance(TIMEOUTS.loadMs);
  await loading;
  const before = guard.reportStatus();
  late.reject(new Error("too late"));
  await clock.advance(0);
  assertEquals(guard.reportStatus(), { ...before, hungCalls: 0 });
});

/** A guard whose lookups end when the test says, and the keys that were unlocked. */
function lateLookups(): {
  guard: AdapterGuard;
  clock: ManualClock;
  answer: (found: Bitmap) => void;
  unlocked: string[];
} {
  const late = Promise.withResolvers<Bitmap>();
  const unlocked: string[] = [];
  const { guard, clock } = guardOf({
    lookupAndLock: () => late.promise,
    unlock: (keys) => void unlocked.push(...keys.map(({ id }) => id)),
  });
  return { guard, clock, answer: late.resolve, unlocked };
}

Deno.test("what a lookup finds after its deadline is unlocked", async () => {
  const { guard, clock, answer, unlocked } = lateLookups();
  const looking = guard.lookup(keys, prefix);
  await clock.advance(TIMEOUTS.lookupMs);
  assertEquals(String((await looking).done), "000");
  assertEquals(unlocked, []);
  answer(Bitmap.of(3, [0, 2]));
  await clock.advance(0);
  assertEquals(unlocked, [keys[0]?.id, keys[2]?.id]);
});

Deno.test("what a lookup finds after the caller left is unlocked", async () => {
  const { guard, clock, answer, unlocked } = lateLookups();
  const caller = new AbortController();
  const looking = guard.lookup(keys, { prefix: true, signal: caller.signal });
  caller.abort();
  assertEquals(String((await looking).done), "000");
  answer(Bitmap.of(3, [1]));
  await clock.advance(0);
  assertEquals(unlocked, [keys[1]?.id]);
  const { timeouts, failedCalls } = guard.reportStatus();
  assertEquals([timeouts, failedCalls, clock.pendingTimers], [0, 0, 0]);
});

Deno.test("what a lookup finds in time is unlocked by the caller", async () => {
  const { guard, clock, answer, unlocked } = lateLookups();
  const looking = guard.lookup(keys, prefix);
  answer(new Bitmap(3, 3));
  assertEquals(String((await looking).done), "111");
  await clock.advance(TIMEOUTS.lookupMs);
  assertEquals(unlocked, []);
  guard.unlock(keys.slice(0, 1));
  assertEquals(unlocked, [keys[0]?.id]);
});

Deno.test("a caller that has left already asks nothing", async () => {
  const { guard } = guardOf({ lookupAndLock: () => Promise.reject(new Error("asked")) });
  const signal = AbortSignal.abort();
  assertEquals(String((await guard.lookup(keys, { prefix: true, signal })).done), "000");
  assertEquals(guard.reportStatus().failedCalls, 0);
});

Deno.test("an adapter that hangs is detected although its callers leave early", async () => {
  const { guard, clock } = guardOf({ lookupAndLock: () => new Promise(() => {}) });
  const caller = new AbortController();
  const looking = guard.lookup(keys, { prefix: true, signal: caller.signal });
  caller.abort();
  await looking;
  assertEquals(guard.reportStatus().timeouts, 0);
  await clock.advance(TIMEOUTS.lookupMs);
  assertEquals(guard.reportStatus().timeouts, 1);
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("closing leaves no timer behind, whatever hangs", async () => {
  const { guard, clock } = guardOf({
    lookupAndLock: () => new Promise(() => {}),
    [Symbol.asyncDispose]: () => new Promise(() => {}),
  });
  const caller = new AbortController();
  const looking = guard.lookup(keys, { prefix: true, signal: caller.signal });
  caller.abort();
  await looking;
  const closing = guard.close();
  await clock.advance(TIMEOUTS.closeMs);
  await closing;
  assertEquals([guard.reportStatus().timeouts, clock.pendingTimers], [1, 0]);
});

Deno.test("stores that keep nothing, without failing, are failures too", async () => {
  const { guard } = guardOf({ store: wrong({ stored: new Bitmap(3), bytes: 0 }) });
  for (let i = 0; i < 3; i++) await guard.store(sealed);
  assertEquals(guard.reportStatus().isHealthy, false);
  assertEquals(guard.reportStatus().failedStores, 9);
});

Deno.test("the last error names the system error code", async () => {
  const cause = Object.assign(new Error("No space left on device (os error 28)"), {
    code: "ENOSPC",
  });
  const { guard } = guardOf({ store: () => Promise.reject(cause) });
  await guard.store(sealed);
  assertEquals(
    guard.reportStatus().lastError,
    "faulty: store failed: ENOSPC: No space left on device (os error 28)",
  );
});

Deno.test("what the adapter says of itself is part of the status", () => {
  const { guard } = guardOf({ reportStatus: () => ({ shelves: 3 }) });
  assertEquals(guard.reportStatus().details, { shelves: 3 });
});

Deno.test("problems that an adapter names are problems", () => {
  const { guard } = guardOf({ reportStatus: () => ({ problems: ["a shelf is loose", 7, null] }) });
  const { problems, isHealthy } = guard.reportStatus();
  assertEquals([problems, isHealthy], [["a shelf is loose"], false]);
  const { guard: other } = guardOf({ reportStatus: () => ({ problems: "none" }) });
  assertEquals([other.reportStatus().problems, other.reportStatus().isHealthy], [[], true]);
});

Deno.test("a status of the adapter that throws does not break the status of the guard", () => {
  const { guard } = guardOf({
    reportStatus: () => {
      throw new Error("no idea");
    },
  });
  const { details, lastError } = guard.reportStatus();
  assertEquals(details, {});
  assertEquals(lastError, "faulty: status failed: no idea");
});

Deno.test("every kind of call has a deadline by default", () => {
  for (const ms of Object.values(DEFAULT_ADAPTER_TIMEOUTS)) assert(ms > 0 && ms <= 60_000);
});

Deno.test("an adapter without trailers gets only payloads, and its loads count as unverified", async () => {
  const held = new Map<string, Uint8Array<ArrayBuffer>>();
  const { guard } = guardOf({ ...mapAdapter(held), capabilities: { unsealed: true } });
  const longKey = testKey(5, { model: "m".repeat(256), cacheSalt: "s".repeat(128) });
  const objects = [...sealed, sealedObject(longKey, layout)];
  assertEquals(String((await guard.store(objects)).done), "1111");
  for (const { key } of objects) {
    assertEquals(held.get(key.id), testBytes(key, layout.byteLength));
  }
  const rooms = [...empty(), emptyObject(longKey, layout)];
  assertEquals(String((await guard.load(rooms)).done), "1111");
  for (const { key, parts } of rooms) {
    assertEquals(parts[0], testBytes(key, layout.byteLength));
  }
  const status = guard.reportStatus();
  assertEquals([status.loadedObjects, status.unverifiedLoads, status.damagedObjects], [4, 4, {}]);
});

Deno.test("damage in an adapter without trailers is served: it cannot be detected", async () => {
  const held = new Map(keys.map(({ id }) => [id, new Uint8Array(layout.byteLength).fill(7)]));
  const { guard } = guardOf({ ...mapAdapter(held), capabilities: { unsealed: true } });
  assertEquals(String((await guard.load(empty())).done), "111");
  held.set(keys[1]?.id ?? "", new Uint8Array(layout.byteLength - 1));
  assertEquals(String((await guard.load(empty())).done), "101");
  const { unverifiedLoads, missedLoads } = guard.reportStatus();
  assertEquals([unverifiedLoads, missedLoads], [5, 1]);
});
