// deno-lint-ignore-file no-console -- a test that does not run says so
import { assert, assertEquals } from "@std/assert";
import { CallDurations, prometheusText } from "../../../src/server/prometheus.ts";
import { CALL_DURATION, METRICS } from "../../../src/telemetry/metric_table.ts";
import { openBusyCache, use } from "../../support/busy_cache.ts";
import { parsePrometheus } from "../../support/prometheus_text.ts";

const hasPromtool = await new Deno.Command("promtool", {
  args: ["--version"],
  stdout: "null",
  stderr: "null",
}).output().then(({ success }) => success, () => false);
if (!hasPromtool) {
  const why = "promtool is not run: it is not installed";
  if (Deno.env.get("KVTIER_REQUIRE_TOOLS")) throw new Error(why);
  console.warn(why);
}

async function pageOfBusyCache(): Promise<string> {
  await using cache = await openBusyCache();
  using durations = new CallDurations(cache.events);
  await use(cache, 1);
  await cache.addAdapter({ type: "dram", max_capacity_gb: 0.01 });
  const salts = new Map([['a "quoted"\\\nsalt', 1]]);
  return prometheusText({ status: cache.reportStatus(), salts }, durations);
}

Deno.test("Prometheus page: a strict parser reads every metric", async () => {
  const families = parsePrometheus(await pageOfBusyCache());
  const valueOf = (name: string, labels: Readonly<Record<string, string>> = {}) =>
    families.get(name)?.samples.find((sample) =>
      Object.entries(labels).every(([label, value]) => sample.labels[label] === value)
    )?.value;
  assertEquals(valueOf("kvtier_l1_capacity_bytes"), 2 ** 20);
  assertEquals(valueOf("kvtier_lookup_hits_total", { tier: "l2" }), 4);
  assertEquals(valueOf("kvtier_lookup_hits_total", { tier: "l1" }), 4);
  assertEquals(valueOf("kvtier_lookup_misses_total", { reason: "absent" }), 2);
  assertEquals(valueOf("kvtier_l1_io_bytes_total", { direction: "read" }), 8 * 1024);
  assertEquals(valueOf("kvtier_l1_salt_used_bytes", { salt: 'a "quoted"\\\nsalt' }), 1);
  const loads = families.get("kvtier_adapter_duration_seconds")?.samples
    .find(({ name, labels }) => name.endsWith("_count") && labels.operation === "load");
  assertEquals(loads?.value, 1);
  // All but the damage, of which there is none.
  assertEquals(families.size, METRICS.length + 1 - 1);
});

Deno.test("Prometheus page: the histogram forgets removed adapters", async () => {
  await using cache = await openBusyCache();
  using durations = new CallDurations(cache.events);
  await use(cache, 1);
  assert(durations.lines(cache.reportStatus()).length > CALL_DURATION.bounds.length);
  await cache.removeAdapter(0);
  assertEquals(durations.lines(cache.reportStatus()), []);
});

Deno.test({
  name: "Prometheus page: promtool finds nothing wrong",
  ignore: !hasPromtool,
  fn: async () => {
    const child = new Deno.Command("promtool", {
      args: ["check", "metrics"],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const input = child.stdin.getWriter();
    await input.write(new TextEncoder().encode(await pageOfBusyCache()));
    await input.close();
    const { success, stdout, stderr } = await child.output();
    const said = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("");
    assert(success, said);
    assertEquals(said, "");
  },
});
