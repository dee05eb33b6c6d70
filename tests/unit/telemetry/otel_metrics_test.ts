import { type MeterProvider, metrics } from "@opentelemetry/api";
import { assert, assertEquals, assertGreater } from "@std/assert";
import { METRICS } from "../../../src/telemetry/metric_table.ts";
import { openBusyCache } from "../../support/busy_cache.ts";
import { childCommand } from "../../support/child.ts";
import { waitUntil } from "../../support/wait_until.ts";

const program = new URL("../../support/otel_program.ts", import.meta.url);

/** A data point of OTLP, as far as the test reads it. */
interface DataPoint {
  readonly attributes: readonly { readonly key: string; readonly value: { stringValue: string } }[];
  readonly asInt?: string;
  readonly asDouble?: number;
  readonly count?: string;
  readonly sum?: number;
}

/** A metric of OTLP. */
interface SentMetric {
  readonly name: string;
  readonly unit: string;
  readonly sum?: { readonly isMonotonic: boolean; readonly dataPoints: readonly DataPoint[] };
  readonly gauge?: { readonly dataPoints: readonly DataPoint[] };
  readonly histogram?: { readonly dataPoints: readonly DataPoint[] };
}

/**
 * Runs the program with a collector beside it: what it sent last of each metric, and its output.
 * After the cache is closed, its final values have to arrive, too.
 */
async function collect(...args: string[]) {
  const metrics = new Map<string, SentMetric>();
  let exports = 0;
  await using collector = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (
    request,
  ) => {
    const { pathname } = new URL(request.url);
    const body = await request.json();
    if (pathname !== "/v1/metrics") return Response.json({});
    exports++;
    for (const { scopeMetrics } of body.resourceMetrics) {
      for (const { scope, metrics: sent } of scopeMetrics) {
        if (scope.name !== "kvtier") continue;
        for (const metric of sent) metrics.set(metric.name, metric);
      }
    }
    return Response.json({});
  });
  const child = childCommand(program, {
    args,
    stdin: "piped",
    shell: [
      "env",
      "OTEL_DENO=true",
      "OTEL_EXPORTER_OTLP_PROTOCOL=http/json",
      `OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:${collector.addr.port}`,
      "OTEL_METRIC_EXPORT_INTERVAL=50",
    ],
  });
  await using process = child.spawn();
  const lines = process.stdout.pipeThrough(new TextDecoderStream());
  let line = "";
  for await (const text of lines) {
    line += text;
    if (line.endsWith("\n")) break;
  }
  const { status, salts } = JSON.parse(line);
  // The second export from now on began after this.
  const last = exports + 2;
  await waitUntil(() => exports >= last);
  const whileOpen = new Map(metrics);
  const input = process.stdin.getWriter();
  await input.write(new Uint8Array(1));
  await waitUntil(() => {
    const [problems] = metrics.get("kvtier.problems")?.gauge?.dataPoints ?? [];
    return Number(problems?.asInt ?? problems?.asDouble) === 1;
  });
  await input.close();
  assert((await process.status).success);
  return { metrics: whileOpen, status, salts: new Map<string, number>(Object.entries(salts)) };
}

/** The value of each combination of labels, `cache` aside. */
function valuesOf(points: readonly DataPoint[]): Record<string, number> {
  return Object.fromEntries(points.map(({ attributes, asInt, asDouble }) => {
    const labels = attributes.filter(({ key }) => key !== "cache")
      .map(({ key, value }) => `${key}=${value.stringValue}`);
    return [labels.sort().join(), Number(asInt ?? asDouble)];
  }));
}

Deno.test("metrics: a collector receives what the status says, without a line of code", async () => {
  const { metrics, status, salts } = await collect("--salts");
  for (const { name, kind, unit, read } of METRICS) {
    const expected = Object.fromEntries(
      [...read({ status, salts })].map(({ labels, value }) => [
        Object.entries(labels).map(([key, label]) => `${key}=${label}`).sort().join(),
        value,
      ]),
    );
    const sent = metrics.get(name);
    if (Object.keys(expected).length === 0) {
      assertEquals(sent, undefined, name);
      continue;
    }
    assertEquals(sent?.unit, unit, name);
    assertEquals(sent?.sum?.isMonotonic, kind === "counter" ? true : undefined, name);
    const points = (kind === "counter" ? sent?.sum : sent?.gauge)?.dataPoints ?? [];
    assertEquals(valuesOf(points), expected, name);
    assertEquals(points[0]?.attributes.find(({ key }) => key === "cache")?.value.stringValue, "0");
  }
  const calls = metrics.get("kvtier.adapter.duration")?.histogram?.dataPoints ?? [];
  const loads = calls.find(({ attributes }) =>
    attributes.some(({ key, value }) => key === "operation" && value.stringValue === "load")
  );
  assertEquals(Number(loads?.count), 3);
  assertGreater(loads?.sum ?? 0, 0);
});

Deno.test("metrics: a collector learns no salts unless they are asked for", async () => {
  const { metrics } = await collect();
  assertGreater(metrics.size, 20);
  assertEquals(metrics.get("kvtier.l1.salt.used"), undefined);
  assert(!JSON.stringify([...metrics.values()]).includes("tenant-"));
});

Deno.test("metrics: a closed cache is collected once more, and then forgotten", async () => {
  const callbacks = new Set<(result: unknown) => void>();
  const meter = {
    createHistogram: () => ({ record: () => {} }),
    createObservableCounter: () => ({}),
    createObservableGauge: () => ({}),
    addBatchObservableCallback: (callback: () => void) => callbacks.add(callback),
    removeBatchObservableCallback: (callback: () => void) => callbacks.delete(callback),
  };
  metrics.setGlobalMeterProvider({ getMeter: () => meter } as unknown as MeterProvider);
  using _provider = { [Symbol.dispose]: () => metrics.disable() };
  const cache = await openBusyCache();
  await cache.close();
  let observed = 0;
  for (const collect of callbacks) collect({ observe: () => observed++ });
  assertGreater(observed, METRICS.length);
  await Promise.resolve();
  assertEquals(callbacks.size, 0);
});
