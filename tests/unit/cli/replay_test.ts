import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { Latencies } from "../../../src/cli/latencies.ts";
import { runForJson, runKvtier } from "../../support/cli.ts";
import { filesIn } from "../../support/fs_adapter.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { writeTrace } from "../../support/traces.ts";

interface Replay {
  readonly isGated: boolean;
  readonly requests: number;
  readonly blocks: number;
  readonly hits: Readonly<Record<string, number>>;
  readonly writtenObjects: number;
  readonly loadedBytes: number;
  readonly firstTokenMs: { readonly mean: number };
  readonly computedMs: { readonly mean: number };
}

Deno.test("kvtier replay serves what simulate predicts, from L1 and the adapter, and cleans up", async () => {
  await using directory = await tempDirectory();
  const path = await writeTrace(directory.path);
  const fs = JSON.stringify({ type: "fs", "base_path": `${directory.path}/kv` });
  const { json: document } = await runForJson([
    "replay",
    path,
    "--l2-adapter",
    fs,
    "--scale",
    "1KiB",
    "--l1-blocks",
    "40",
    "--tokens-per-second",
    "1",
  ]);
  const simulated = await runForJson(["simulate", path, "--capacities", "1000"]);
  const [trace] = (simulated.json as {
    traces: { blocks: number; policies: { hitRatios: number[] }[] }[];
  }).traces;
  const { replays } = document as { replays: Replay[] };
  assertEquals(replays.map(({ isGated }) => isGated), [true, false]);
  for (const { requests, blocks, hits, firstTokenMs, computedMs, loadedBytes } of replays) {
    const total = Object.values(hits).reduce((sum, count) => sum + count, 0);
    assertEquals([requests, blocks], [60, trace?.blocks]);
    assertAlmostEquals(total / blocks, trace?.policies[0]?.hitRatios[0] ?? 0, 1e-9);
    assert((hits["L1"] ?? 0) > 0 && (hits["fs"] ?? 0) > 0 && loadedBytes > 0, "both tiers serve");
    assert(firstTokenMs.mean < computedMs.mean);
  }
  assertEquals(
    (await filesIn(`${directory.path}/kv`)).filter((name) => name.endsWith(".data")),
    [],
  );
});

Deno.test("kvtier replay prints a table, and refuses what it cannot use", async () => {
  await using directory = await tempDirectory();
  const path = await writeTrace(directory.path);
  const given = ["replay", path, "--requests", "10", "--scale", "256"];
  const l2 = ["--l2-adapter", '{"type":"dram"}'];
  const { code, out, err } = await runKvtier([...given, ...l2, "--store", "second_touch"]);
  assertEquals([code, err], [0, ""]);
  assertMatch(out, /^small\.jsonl:\n {2}with the gate: 10 requests, \d+ blocks, hits /);
  assertMatch(out, /first token: mean .*; without a cache: mean /);
  for (
    const [args, message] of [
      [["replay", path, ...l2, "--scale", "100"], /--scale: expected a positive multiple of 256/],
      [["replay", path, ...l2, "--eviction", "FIFO"], /--eviction.*LFU_AGED/],
      [["replay", ...l2], /TRACE: expected at least one file/],
      [["replay", path], /--l2-adapter: expected an adapter/],
    ] as const
  ) {
    const refused = await runKvtier(args);
    assertMatch(refused.err, message);
    assertEquals(refused.code, 2);
  }
});

Deno.test("Latencies: quantiles are exact to a few percent, whatever the number of times", () => {
  const times = new Latencies();
  assertEquals(times.summary(), { mean: 0, p50: 0, p95: 0 });
  for (let ms = 1; ms <= 1_000; ms++) times.add(ms);
  const { mean, p50, p95 } = times.summary();
  assertEquals(mean, 500.5);
  assertAlmostEquals(p50, 500, 12);
  assertAlmostEquals(p95, 950, 22);
});
