import { failFor } from "../base/config_error.ts";
import { EVICTION_POLICIES } from "../policies/eviction_policy.ts";
import { readTrace, type TraceRequest } from "../trace/trace_file.ts";
import type { CliCommand, CommandArgs, CommandContext } from "./command.ts";
import { l2Args, readL2Config } from "./l2_config.ts";
import { ADAPTER_PERMISSIONS, askForAdapter } from "./permissions.ts";
import { bytesInWords, parseBytes, parseCount, timeInWords } from "./quantities.ts";
import { replay, type ReplayOptions, type ReplayResult } from "./replay_run.ts";
import { fileName, requestsArg, traceAt, tracePaths, TRACES } from "./trace_args.ts";

const fail = failFor("kvtier replay");

/** Ranges of L1 are multiples of this. */
const ALIGNMENT = 256;
const POLICIES = EVICTION_POLICIES.map(({ name }) => name);
const STORE_POLICIES = ["default", "skip_l1", "on_evict", "second_touch"] as const;

/** `kvtier replay`: drives a cache with the requests of traces. */
export const replayCommand: CliCommand = {
  description: "Drive a cache with request traces, with bytes",
  details: [
    "Each request is a match, and a put of the blocks that were not served, on host memory and the " +
    "given adapters. Every trace runs twice, with an empty cache: with the gate, which loads only what " +
    "is estimated to be faster than computing it, and without. What a run stored is removed in the end.",
    "The time to the first token is the measured time of the match, and the tokens that were not " +
    "served at --tokens-per-second. Blocks of a real model are larger than --scale: divide the rate by " +
    "as much to keep the ratio.",
  ],
  options: {
    ...l2Args,
    scale: {
      type: "string",
      valueHint: "SIZE",
      default: "16KiB",
      description: "Bytes of a block, a multiple of 256",
    },
    "l1-blocks": {
      type: "string",
      valueHint: "N",
      default: "1000",
      description: "Capacity of L1 in blocks",
    },
    eviction: {
      type: "string",
      valueHint: "POLICY",
      oneOf: POLICIES,
      default: "LFU_AGED",
      description: "Eviction policy of L1",
    },
    store: {
      type: "string",
      valueHint: "POLICY",
      oneOf: STORE_POLICIES,
      default: "default",
      description: "Store policy",
    },
    "tokens-per-second": {
      type: "string",
      valueHint: "N",
      default: "2500",
      description: "Tokens that an engine computes per second",
    },
    timed: { type: "boolean", description: "Send requests at the times of the trace" },
    ...requestsArg,
  },
  positional: TRACES,
  permissions: ["--allow-read=TRACE", ...ADAPTER_PERMISSIONS],
  examples: [
    `replay conversation_trace.jsonl --requests 1000 --l2-adapter '{"type":"dram"}'`,
  ],
  run: async (args, context) => {
    const options = await optionsOf(args);
    const replays: Record<string, unknown>[] = [];
    for (const path of await tracePaths("kvtier replay", args)) {
      context.out.print(`${fileName(path)}:`);
      for (const isGated of [true, false]) {
        const result = await run(path, context, { ...options, isGated });
        const name = isGated ? "with the gate" : "without the gate";
        for (const line of linesOf(name, result)) context.out.print(line);
        replays.push({ trace: path, isGated, ...result });
      }
    }
    context.out.json({ replays });
  },
};

/** What the command line says about a replay. */
interface ReplayArguments extends Omit<ReplayOptions, "isGated" | "onRequest"> {
  /** Requests to replay at most. */
  readonly limit: number | undefined;
}

async function optionsOf(args: CommandArgs): Promise<ReplayArguments> {
  const { values, flags } = args;
  const blockBytes = parseBytes("scale", values["scale"] ?? "");
  if (!(blockBytes > 0 && blockBytes % ALIGNMENT === 0)) {
    fail("--scale", `a positive multiple of ${ALIGNMENT} bytes`, values["scale"]);
  }
  const l1Blocks = parseCount("l1-blocks", values["l1-blocks"] ?? "");
  const { requests, "adapters-dir": adaptersDir } = values;
  const l2 = await readL2Config(args.raw);
  for (const config of l2) await askForAdapter(config);
  return {
    cache: {
      l1: {
        capacityBytes: l1Blocks * blockBytes,
        eviction: POLICIES.find((name) => name === values["eviction"]) ?? "LFU_AGED",
      },
      store: {
        policy: STORE_POLICIES.find((name) => name === values["store"]) ?? "default",
      },
      l2,
      ...adaptersDir === undefined ? {} : { adaptersDir },
    },
    blockBytes,
    tokensPerSecond: parseCount("tokens-per-second", values["tokens-per-second"] ?? ""),
    limit: requests === undefined ? undefined : parseCount("requests", requests),
    isTimed: flags.has("timed"),
  };
}

async function run(
  path: string,
  { host, out }: CommandContext,
  options: ReplayArguments & { readonly isGated: boolean },
): Promise<ReplayResult> {
  const { limit } = options;
  using progress = out.progress("replaying", limit);
  const requests: AsyncIterable<TraceRequest> = readTrace(traceAt(path), limit);
  const onRequest = (done: number, blocks: number, bytes: number): void =>
    progress.show(done, blocks, bytes);
  return await replay(requests, { ...options, onRequest }, host);
}

function linesOf(name: string, result: ReplayResult): string[] {
  const { blocks, hits, requests, firstTokenMs, computedMs, writesPerHitBlock } = result;
  const percent = (count: number): string => `${(100 * count / Math.max(1, blocks)).toFixed(1)} %`;
  const total = Object.values(hits).reduce((sum, count) => sum + count, 0);
  const tiers = Object.entries(hits).map(([tier, count]) => `${tier} ${percent(count)}`);
  const times = ({ mean, p50, p95 }: ReplayResult["firstTokenMs"]): string =>
    `mean ${timeInWords(mean)}, p50 ${timeInWords(p50)}, p95 ${timeInWords(p95)}`;
  const writes = writesPerHitBlock === null ? "no block was hit" : writesPerHitBlock.toFixed(2);
  return [
    `  ${name}: ${requests} requests, ${blocks} blocks, hits ${percent(total)} (${
      tiers.join(", ")
    })`,
    `    first token: ${times(firstTokenMs)}; without a cache: ${times(computedMs)}`,
    `    adapters: stored ${result.writtenObjects} objects, ${
      bytesInWords(result.writtenBytes)
    }; ` +
    `loaded ${bytesInWords(result.loadedBytes)}; writes per block later hit: ${writes}`,
    ...result.skippedBlocks > 0 ? [`    L1 had no room for ${result.skippedBlocks} blocks`] : [],
  ];
}
