import { assertEquals } from "@std/assert";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import type { L1Listener } from "../../../src/l1/l1_cache.ts";
import {
  finishAndRead,
  LAYOUT,
  residents,
  setUp,
  SIZE,
  stage,
  writeObjects,
} from "../../support/l1.ts";
import { testKey, testKeys } from "../../support/objects.ts";

Deno.test("listeners are told once of a call that made objects resident", () => {
  const { l1 } = setUp();
  const heard: string[] = [];
  l1.addListener({
    written: () => heard.push("written"),
    admitted: () => heard.push(`admitted, ${l1.usedBytes / SIZE} in all`),
  });
  writeObjects(l1, testKeys(3), LAYOUT);
  assertEquals(heard.splice(0), ["written", "admitted, 3 in all"]);
  writeObjects(l1, [testKey(3)], LAYOUT, { transient: true });
  assertEquals(heard.splice(0), ["admitted, 4 in all"]);
  const loaded = stage(l1, testKeys(2, 4));
  const cancelled = stage(l1, [testKey(6)]);
  assertEquals(heard, []);
  l1.finishWriteAndReserveRead(loaded);
  assertEquals(heard.splice(0), ["admitted, 7 in all"]);
  l1.finishWriteAndDelete(cancelled);
  l1.finishWrite(cancelled);
  assertEquals(heard, [], "nothing became resident");
});

Deno.test("a listener may evict as soon as objects are resident", () => {
  const { l1 } = setUp(8);
  l1.addListener({ admitted: () => void l1.evictTo(2 * SIZE) });
  for (const key of testKeys(5)) writeObjects(l1, [key], LAYOUT);
  assertEquals(residents(l1), [3, 4]);
  const [first] = finishAndRead(l1, stage(l1, testKeys(3, 10)));
  assertEquals(first?.status, "success", "what the call leases stays");
  assertEquals(residents(l1), [10, 11, 12]);
});

Deno.test("a listener that throws breaks nothing, and is logged", async () => {
  const records: LogRecord[] = [];
  await configure({
    sinks: { records: (record) => records.push(record) },
    loggers: [
      { category: "kvtier", sinks: ["records"] },
      { category: ["logtape", "meta"], sinks: [] },
    ],
  });
  try {
    const { l1 } = setUp();
    const heard: string[] = [];
    const fail = (): never => {
      throw new Error("listener is broken");
    };
    l1.addListener({ written: fail, admitted: fail, removed: fail });
    l1.addListener({
      written: () => heard.push("written"),
      admitted: () => heard.push("admitted"),
      removed: () => heard.push("removed"),
    });
    writeObjects(l1, testKeys(2), LAYOUT);
    assertEquals(l1.delete(testKeys(2)), ["success", "success"]);
    assertEquals(heard, ["written", "admitted", "removed", "removed"]);
    assertEquals(records.map(({ category, level }) => [...category, level].join(" ")), [
      ...Array(4).fill("kvtier l1 error"),
    ]);
    assertEquals(l1.usedBytes, 0);
  } finally {
    await reset();
  }
});

Deno.test("a removed listener is not called any more", () => {
  const { l1 } = setUp();
  const heard: string[] = [];
  const listener: L1Listener = { written: () => heard.push("written") };
  l1.addListener(listener);
  writeObjects(l1, [testKey(0)], LAYOUT);
  l1.removeListener(listener);
  writeObjects(l1, [testKey(1)], LAYOUT);
  assertEquals(heard, ["written"]);
});

Deno.test("a listener may write a removed object again", () => {
  const { l1, heard } = setUp(2);
  const again = [testKey(1)];
  l1.addListener({ removed: () => writeObjects(l1, again.splice(0), LAYOUT) });
  writeObjects(l1, testKeys(2), LAYOUT);
  heard.length = 0;
  l1.finishWrite(stage(l1, [testKey(5)]));
  assertEquals(heard, ["evicted 1", "evicted 0", "written 1", "written 5"]);
  assertEquals(residents(l1), [1, 5]);
});
