// deno-lint-ignore-file no-console -- a program prints
/**
 * Time to the first token over request traces, through a prefetch controller that loads only what is
 * estimated to be faster than computing it. Time is modelled; no bytes are moved:
 * `deno run -A tests/bench/gate_traces.ts TRACE… [--requests N] [--tokens-per-second N]`.
 */
import { parseArgs } from "node:util";
import { runGate, SCENARIOS, summary, type TraceRequest } from "../sim/gate_world.ts";

const { values: options, positionals: paths } = parseArgs({
  allowPositionals: true,
  options: {
    requests: { type: "string" },
    "tokens-per-second": { type: "string", default: "2500" },
  },
});
const tokensPerSecond = Number(options["tokens-per-second"]);
const limit = Number(options.requests ?? Infinity);
if (paths.length === 0 || !(tokensPerSecond > 0) || !(limit > 0)) {
  console.error("usage: gate_traces.ts TRACE… [--requests N] [--tokens-per-second N]");
  Deno.exit(2);
}

const COLUMNS = [
  "Adapter",
  "p50",
  "p95",
  "Mean",
  "Saving",
  "p95 to no cache",
  "Over 1.02x",
  "Shortened",
  "Computed",
  "Given up",
  "Explored",
];

for (const path of paths) {
  const lines = (await Deno.readTextFile(path)).trim().split("\n").slice(0, limit);
  const trace = lines.map((line) => JSON.parse(line) as TraceRequest);
  console.log(
    `\n${path}: ${trace.length} requests, ${tokensPerSecond} tokens/s, times in seconds\n`,
  );
  printRow(COLUMNS);
  printRow(COLUMNS.map(() => "---"));
  for (const [i, scenario] of SCENARIOS.entries()) {
    const { cached, computed, free, status } = await runGate(trace, scenario, { tokensPerSecond });
    const [ours, none, best] = [summary(cached), summary(computed), summary(free)];
    if (i === 0) printRow(["no cache", ...figures(none), "", "", "", "", "", "", ""]);
    const saving = (none.mean - ours.mean) / (none.mean - best.mean);
    const late = cached.filter((ms, i) => ms > 1.02 * (computed[i] ?? 0)).length;
    const { shortenedLoads, computedInstead, wrongGuesses, explorations } = status.decisions;
    printRow([
      scenario.name,
      ...figures(ours),
      Number.isFinite(saving) ? `${(100 * saving).toFixed(1)} %` : "",
      `${(ours.p95 / none.p95).toFixed(3)}x`,
      `${(100 * late / trace.length).toFixed(2)} %`,
      ...[shortenedLoads, computedInstead, wrongGuesses, explorations].map(String),
    ]);
    if (scenario.name === "healthy disk") {
      printRow(["free loads of the same hits", ...figures(best), "100 %", "", "", "", "", "", ""]);
    }
  }
}

function printRow(cells: readonly string[]): void {
  console.log(`| ${cells.join(" | ")} |`);
}

function figures({ p50, p95, mean }: ReturnType<typeof summary>): string[] {
  return [p50, p95, mean].map((ms) => (ms / 1000).toFixed(2));
}
