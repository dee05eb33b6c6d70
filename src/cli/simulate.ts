import { type CliCommand, type CommandContext, CommandError } from "./command.ts";
import { EVICTION_POLICIES, evictionPolicy } from "../policies/eviction_policy.ts";
import type { EvictionPolicyName } from "../policies/eviction_order.ts";
import { failFor } from "../base/config_error.ts";
import { beladyHits } from "../trace/belady.ts";
import { hitChart } from "../trace/hit_chart.ts";
import { simulate } from "../trace/simulation.ts";
import { loadTrace, type Trace } from "../trace/trace_file.ts";
import { askFor } from "./permissions.ts";
import { parseCount } from "./quantities.ts";
import { fileName, listOf, requestsArg, traceAt, tracePaths, TRACES } from "./trace_args.ts";

const NAMES = EVICTION_POLICIES.map(({ name }) => name);
/** The row of the bound. */
const BOUND = "Belady";

/** Hit ratios of one policy, by capacity. */
interface PolicyRow {
  readonly policy: string;
  readonly hitRatios: readonly number[];
}

/** `kvtier simulate`: runs eviction policies over request traces. */
export const simulateCommand: CliCommand = {
  description: "Run eviction policies over request traces, without bytes",
  details: [
    "Shows the share of blocks that a cache serves, as parts of prefixes, for each policy and " +
    "capacity. Belady is the bound that no policy can exceed: it knows the future.",
  ],
  options: {
    capacities: {
      type: "string",
      valueHint: "LIST",
      default: "1000,3000,10000,30000,50000,100000",
      description: "Capacities in blocks",
    },
    policies: {
      type: "string",
      valueHint: "LIST",
      default: NAMES.join(","),
      description: "Policies to run",
    },
    svg: { type: "string", valueHint: "FILE", description: "Also draw hit ratios over capacities" },
    ...requestsArg,
  },
  positional: TRACES,
  permissions: ["--allow-read=TRACE", "--allow-write=FILE for --svg"],
  examples: [
    "simulate conversation_trace.jsonl --policies LRU,LFU_AGED",
    "simulate conversation_trace.jsonl --capacities 1000,10000 --svg hits.svg",
  ],
  run: async (args, context) => {
    const { values } = args;
    const capacities = listOf("capacities", values["capacities"] ?? "")
      .map((text) => parseCount("capacities", text)).sort((a, b) => a - b);
    const policies = listOf("policies", values["policies"] ?? "").map(knownPolicy);
    const { requests, svg } = values;
    const limit = requests === undefined ? undefined : parseCount("requests", requests);
    const paths = await tracePaths("kvtier simulate", args);
    if (svg !== undefined) {
      if (paths.length > 1) failFor("kvtier simulate")("--svg", "one TRACE", paths.length);
      await askFor({ name: "write", path: svg });
    }
    const traces: Record<string, unknown>[] = [];
    for (const path of paths) {
      const trace = await loadTrace(traceAt(path), limit);
      const rows = await rowsOf(trace, capacities, policies, context);
      print(path, trace, capacities, rows, context);
      traces.push({
        trace: path,
        requests: trace.requests.length,
        blocks: trace.blockCount,
        uniqueBlocks: trace.uniqueBlocks,
        capacities,
        policies: rows,
      });
      if (svg !== undefined) await writeChart(svg, path, capacities, rows);
    }
    context.out.json({ traces });
  },
};

function knownPolicy(name: string): EvictionPolicyName {
  const found = NAMES.find((each) => each === name.toUpperCase());
  return found ?? failFor("kvtier simulate")("--policies", `some of ${NAMES.join(", ")}`, name);
}

async function rowsOf(
  trace: Trace,
  capacities: readonly number[],
  policies: readonly EvictionPolicyName[],
  { host: { signal }, out }: CommandContext,
): Promise<PolicyRow[]> {
  const blocks = Math.max(1, trace.blockCount);
  const total = capacities.length * (policies.length + 1);
  using progress = out.progress("simulating", total);
  const rows: PolicyRow[] = [];
  let done = 0;
  for (const policy of [...policies, BOUND]) {
    const hitRatios: number[] = [];
    for (const capacity of capacities) {
      // Lets a signal in: a run may take seconds.
      await new Promise((resolve) => setTimeout(resolve, 0));
      signal.throwIfAborted();
      progress.show(done++, done * trace.blockCount, 0);
      const hits = policy === BOUND
        ? beladyHits(trace, capacity)
        : simulate(trace, evictionPolicy(policy as EvictionPolicyName), capacity).hits;
      hitRatios.push(hits / blocks);
    }
    rows.push({ policy, hitRatios });
  }
  return rows;
}

function print(
  path: string,
  trace: Trace,
  capacities: readonly number[],
  rows: readonly PolicyRow[],
  { out }: CommandContext,
): void {
  const { requests, blockCount, uniqueBlocks } = trace;
  out.print(
    `${fileName(path)}: ${requests.length} requests, ${blockCount} blocks, ${uniqueBlocks} unique`,
  );
  const cells = [
    ["blocks", ...capacities.map(String)],
    ...rows.map(({ policy, hitRatios }) => [
      policy,
      ...hitRatios.map((ratio) => (100 * ratio).toFixed(1)),
    ]),
  ];
  const width = Math.max(10, ...cells.map(([first = ""]) => first.length + 2));
  for (const [first = "", ...others] of cells) {
    out.print(first.padEnd(width) + others.map((cell) => cell.padStart(9)).join(""));
  }
  out.print("");
}

async function writeChart(
  file: string,
  path: string,
  capacities: readonly number[],
  rows: readonly PolicyRow[],
): Promise<void> {
  const lines = rows.map(({ policy, hitRatios }) => ({
    name: policy,
    isBound: policy === BOUND,
    points: capacities.map((capacity, i) => ({ capacity, ratio: hitRatios[i] ?? 0 })),
  }));
  try {
    await Deno.writeTextFile(file, hitChart(`Hit ratio of blocks: ${fileName(path)}`, lines));
  } catch (cause) {
    throw new CommandError(`--svg: ${(cause as Error).message}`, { cause });
  }
}
