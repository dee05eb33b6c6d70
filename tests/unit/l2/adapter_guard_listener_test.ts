import { assertEquals } from "@std/assert";
import { Bitmap } from "../../../src/adapter/contract.ts";
import type { GuardListener } from "../../../src/l2/guard_listener.ts";
import { testKey, testLayout } from "../../support/objects.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";
import { emptyObject, sealedObject } from "../../support/sealed_objects.ts";
import {
  answerWith,
  bound,
  empty,
  filledGuard,
  guardOf,
  keys,
  prefix,
  sealed,
  TIMEOUTS,
} from "./guarded.ts";

const [a, b, c] = keys.map(({ id }) => id);

/** A listener that records its calls. */
function listener(): { listener: GuardListener; events: unknown[] } {
  const events: unknown[] = [];
  return {
    events,
    listener: {
      stored: (objects) => events.push(["stored", ...objects.map(({ key }) => key.id)]),
      accessed: (keys) => events.push(["accessed", ...keys.map(({ id }) => id)]),
      deleted: (keys, bytes) => events.push(["deleted", ...keys.map(({ id }) => id), bytes]),
      damaged: (key, fault) => events.push(["damaged", key.id, fault]),
      stateChanged: () => events.push("state"),
    },
  };
}

Deno.test("listeners learn exactly what was stored, loaded and deleted", async () => {
  const adapter = bound(new RecordingAdapter());
  const { guard } = guardOf({
    ...adapter,
    store: async (objects, options) => {
      await adapter.store([0, 2].flatMap((i) => objects[i] ?? []), options);
      return { stored: Bitmap.of(3, [0, 2]), bytes: 640 };
    },
  });
  const { listener: first, events } = listener();
  const remove = guard.addListener(first);
  await guard.store(sealed);
  const { done: found } = await guard.lookup(keys, { prefix: false });
  await guard.load(found.gather(empty()));
  await guard.delete(keys);
  assertEquals(events, [["stored", a, c], ["accessed", a, c], ["deleted", a, c, 640]]);
  await guard.load(empty());
  await guard.delete(keys);
  assertEquals(events.length, 3, "nothing happened");
  remove();
  await guard.store(sealed);
  assertEquals(events.length, 3, "not told any more");
});

Deno.test("listeners learn what is damaged, and that it was removed", async () => {
  const removed = { deleted: new Bitmap(2, 2), bytes: 640 };
  const { guard } = await filledGuard({
    load: (objects) => {
      const [first] = objects;
      first?.parts.forEach((part, i) => part.set(sealed[0]?.parts[i] ?? part));
      return Promise.resolve(new Bitmap(3, 3));
    },
    delete: answerWith(removed),
  });
  const { listener: each, events } = listener();
  guard.addListener(each);
  await guard.load(empty());
  assertEquals(events, [
    ["damaged", b, "magic"],
    ["damaged", c, "magic"],
    ["accessed", a],
    ["deleted", b, c, 640],
  ]);
});

Deno.test("listeners learn of what was stored or deleted after the deadline", async () => {
  const storing = Promise.withResolvers<never>();
  const deleting = Promise.withResolvers<never>();
  const { guard, clock } = guardOf({
    store: () => storing.promise,
    delete: () => deleting.promise,
  });
  const { listener: each, events } = listener();
  guard.addListener(each);
  const calls = [guard.store(sealed), guard.delete(keys)];
  await clock.advance(TIMEOUTS.storeMs);
  await Promise.all(calls);
  assertEquals(events, ["state", "state"], "two circuits opened");
  storing.resolve({ stored: new Bitmap(3, 1), bytes: 320 } as never);
  deleting.resolve({ deleted: new Bitmap(3, 2), bytes: 640 } as never);
  await clock.advance(0);
  assertEquals(events.slice(2), [["stored", a], ["deleted", a, b, 640]]);
  assertEquals(guard.reportStatus().storedObjects, 0);
});

Deno.test("listeners learn when a circuit opens and when it closes", async () => {
  let isBroken = true;
  const { guard, clock } = guardOf({
    lookupAndLock: () => isBroken ? Promise.reject("down") : Promise.resolve(new Bitmap(3)),
  });
  const states: string[] = [];
  guard.addListener({
    stateChanged: () => states.push(guard.reportStatus().circuits.lookup.state),
  });
  for (let i = 0; i < 5; i++) await guard.lookup(keys, prefix);
  isBroken = false;
  await clock.advance(1000);
  await guard.lookup(keys, prefix);
  assertEquals(states, ["open", "closed"]);
});

Deno.test("a listener that throws breaks neither the call nor other listeners", async () => {
  const { guard } = await filledGuard({
    delete: answerWith({ deleted: new Bitmap(3, 3), bytes: 1 }),
  });
  const fail = (): never => {
    throw new Error("listener");
  };
  guard.addListener({
    stored: fail,
    accessed: fail,
    deleted: fail,
    damaged: fail,
    stateChanged: fail,
  });
  const { listener: other, events } = listener();
  guard.addListener(other);
  assertEquals(String((await guard.store(sealed)).done), "111");
  assertEquals(String((await guard.load(empty())).done), "111");
  assertEquals((await guard.delete(keys)).bytes, 1);
  guard.drain();
  await guard.close();
  assertEquals(events.length, 5);
  assertEquals(guard.reportStatus().failedCalls, 0);
});

Deno.test("objects of several layouts are stored and loaded by their own trailers", async () => {
  const adapter = new RecordingAdapter();
  const { guard } = guardOf(bound(adapter));
  const layouts = [4, 256, 1024].map((size) => testLayout(size));
  const long = testKey(5, { model: "m".repeat(256), cacheSalt: "s".repeat(128) });
  const names = [...keys.slice(0, 2), long];
  const objects = names.map((key, i) => sealedObject(key, layouts[i] ?? testLayout(4)));
  const stripped = objects.map(({ key, parts, byteLength }) => ({ key, parts, byteLength }));
  assertEquals(String((await guard.store(stripped)).done), "111");
  const rooms = names.map((key, i) => {
    const { parts, byteLength } = emptyObject(key, layouts[i] ?? testLayout(4));
    return { key, parts, byteLength };
  });
  await guard.lookup(names, prefix);
  assertEquals(String((await guard.load(rooms)).done), "111");
  assertEquals(rooms.map(({ parts }) => parts), objects.map(({ parts }) => parts));
  assertEquals(guard.lockedKeys, 0);
});

Deno.test("an object that fails verification is deleted, unless it has another key", async () => {
  const adapter = new RecordingAdapter();
  const { guard } = guardOf(bound(adapter));
  await guard.store(sealed);
  adapter.held.get(keys[0]?.id ?? "")?.fill(1, 7, 8);
  adapter.held.set(
    keys[1]?.id ?? "",
    (adapter.held.get(keys[2]?.id ?? "") as Uint8Array<ArrayBuffer>).slice(),
  );
  await guard.lookup(keys, prefix);
  assertEquals(String((await guard.load(empty())).done), "001");
  assertEquals(guard.reportStatus().damagedObjects, { "payload-checksum": 1, key: 1 });
  assertEquals(adapter.deletes, [[a]]);
});
