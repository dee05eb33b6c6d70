import { assert, assertEquals, assertMatch } from "@std/assert";
import { page, withMetrics } from "../../../.ci/metric_docs.ts";
import { fillOf } from "../../../src/telemetry/adapter_fill.ts";
import { CALL_DURATION, METRICS } from "../../../src/telemetry/metric_table.ts";
import { openBusyCache } from "../../support/busy_cache.ts";

Deno.test("metrics: names, descriptions and labels are in order", async () => {
  await using cache = await openBusyCache();
  const source = { status: cache.reportStatus(), salts: cache.usageBySalt() };
  const names = [...METRICS, CALL_DURATION].map(({ name }) => name);
  assertEquals(new Set(names).size, names.length);
  for (const { name, description, unit, labels, read } of METRICS) {
    assertMatch(name, /^kvtier(?:\.[a-z0-9]+(?:_[a-z0-9]+)*)+$/);
    assertMatch(unit, /^(?:By|s|1|\{[a-z]+\})$/);
    assertMatch(description, /^[A-Z1].*[^.]$/);
    const seen = new Set<string>();
    for (const point of read(source)) {
      assertEquals(Object.keys(point.labels), labels, name);
      assert(Number.isFinite(point.value) && point.value >= 0, `${name} ${point.value}`);
      seen.add(JSON.stringify(point.labels));
    }
    assertEquals(seen.size, [...read(source)].length, `${name}: labels are unique`);
  }
});

Deno.test("metrics: salts are a label only if asked for", async () => {
  await using cache = await openBusyCache();
  const metric = METRICS.find(({ name }) => name === "kvtier.l1.salt.used");
  const read = (salts: ReadonlyMap<string, number> | undefined) => [
    ...metric?.read({ status: cache.reportStatus(), salts }) ?? [],
  ];
  assertEquals(read(undefined), []);
  assertEquals(
    read(cache.usageBySalt()).map(({ labels }) => labels.salt).sort(),
    ["", "tenant-0", "tenant-1", "tenant-2"],
  );
});

Deno.test("the status names the models and salts with the most bytes in L1", async () => {
  await using cache = await openBusyCache();
  const { usage } = cache.reportStatus();
  assertEquals(usage.saltCount, 4);
  assertEquals(usage.topSalts.map(({ name }) => name), ["", "tenant-0", "tenant-1", "tenant-2"]);
  assertEquals(usage.topSalts.map(({ bytes }) => bytes), [2048, 2048, 2048, 2048]);
  assertEquals(usage.modelCount, 3);
  assertEquals(
    usage.topModels.map(({ name, bytes }) => [name, bytes]),
    [["model-0", 3072], ["model-1", 3072], ["test/model", 2048]],
  );
  await cache.forget({ model: "model-0" });
  assertEquals(cache.reportStatus().usage.modelCount, 2);
});

Deno.test("the fill of an adapter comes from its own status, if that makes sense", () => {
  const none = { usedBytes: undefined, capacityBytes: undefined };
  assertEquals(fillOf({}), none);
  assertEquals(fillOf({ usedBytes: -1, capacityBytes: "1", space: 7 }), none);
  assertEquals(fillOf({ usedBytes: NaN, space: null }), none);
  assertEquals(fillOf({ usedBytes: 1, capacityBytes: 2 }), { usedBytes: 1, capacityBytes: 2 });
  assertEquals(fillOf({ space: { usedBytes: 3 } }), { usedBytes: 3, capacityBytes: undefined });
});

Deno.test("docs/metrics.md has the table of metrics: deno task docs writes it", async () => {
  const text = await Deno.readTextFile(page);
  assertEquals(text, withMetrics(text));
});
