import { HostDevice } from "../../src/memory/host_device.ts";
import { PrefillRate } from "../../src/engine/prefill_rate.ts";
import {
  type AdapterObject,
  Bitmap,
  type L2Adapter,
  ObjectKey,
  wait,
} from "../../src/adapter/contract.ts";
import { ForgetBarrier } from "../../src/lifecycle/forget_barrier.ts";
import { PrefetchController, type PrefetchStatus } from "../../src/prefetch/prefetch_controller.ts";
import { retain } from "../../src/prefetch/prefetch_policy.ts";
import { adapterSet, scratchPool } from "../support/controllers.ts";
import { lruL1 } from "../support/l1.ts";
import { testLayout } from "../support/objects.ts";
import { SimClock, type SimClockView } from "./sim_clock.ts";

/** Tokens of a block of a trace. */
export const BLOCK_TOKENS = 512;
/** Bytes of a block of a model with 28 layers of 8 heads with 128 elements in `f16`. */
const BLOCK_BYTES = BLOCK_TOKENS * 28 * 2 * 8 * 128 * 2;
/** An object of the simulation stands for a block. */
const LAYOUT = testLayout(256);
/** Blocks that fit into device memory. */
const L1_BLOCKS = 300;
/** Positions after which attention doubles the time of a token. */
const DOUBLING_TOKENS = 20_000;

/** One request of a trace. */
export interface TraceRequest {
  /** Arrival in milliseconds. */
  readonly timestamp: number;
  /** Tokens of the prompt. */
  readonly "input_length": number;
  /** Its blocks. */
  readonly "hash_ids": readonly number[];
}

/** What the adapter is like at a time of the simulation. */
export interface Condition {
  /** Milliseconds of each call. */
  readonly latencyMs: number;
  /** Bytes per second of all loads. */
  readonly bandwidth: number;
  /** Calls that never end. */
  readonly hangs?: "lookups" | "loads";
}

/** An adapter, by the share of the requests so far. */
export interface Scenario {
  readonly name: string;
  readonly at: (share: number) => Condition;
  /** Whether nothing is ever stored. */
  readonly isEmpty?: boolean;
}

const DISK: Condition = { latencyMs: 0.3, bandwidth: 3e9 };
const SLOW_DISK: Condition = { latencyMs: 30, bandwidth: 3e7 };

/** The adapters that a gate is judged by. */
export const SCENARIOS: readonly Scenario[] = [
  { name: "empty cache", at: () => DISK, isEmpty: true },
  { name: "healthy disk", at: () => DISK },
  { name: "remote tier", at: () => ({ latencyMs: 2, bandwidth: 1e9 }) },
  { name: "disk at 1/100", at: () => SLOW_DISK },
  { name: "lookups hang", at: () => ({ ...DISK, hangs: "lookups" }) },
  { name: "loads hang", at: () => ({ ...DISK, hangs: "loads" }) },
  { name: "1/100 from the middle", at: (share) => share < 0.5 ? DISK : SLOW_DISK },
  {
    name: "1/100 in the middle third",
    at: (share) => share < 1 / 3 || share > 2 / 3 ? DISK : SLOW_DISK,
  },
  {
    name: "loads hang from the middle",
    at: (share) => share < 0.5 ? DISK : { ...DISK, hangs: "loads" },
  },
];

/** Times to the first token in milliseconds, one for each request. */
export interface GateRun {
  readonly cached: readonly number[];
  /** Without a cache. */
  readonly computed: readonly number[];
  /** With loads of the same hits that take no time. */
  readonly free: readonly number[];
  readonly status: PrefetchStatus;
}

/** Options of {@linkcode runGate}. */
export interface GateOptions {
  /** Whether the engine tells how fast it computes. @default {true} */
  readonly isGated?: boolean;
  /** Tokens that the engine computes in a second at the start of a prompt. @default {2500} */
  readonly tokensPerSecond?: number;
}

/** An adapter that takes time, and bytes that are as many as the blocks of the trace. */
class TraceAdapter implements L2Adapter {
  readonly capabilities = { unsealed: true };
  readonly held = new Set<string>();
  condition: Condition = DISK;
  readonly #clock: SimClockView;
  #isFreeAt = 0;

  constructor(clock: SimClockView) {
    this.#clock = clock;
  }

  store(objects: readonly AdapterObject[]): Promise<{ stored: Bitmap; bytes: number }> {
    return Promise.resolve({ stored: new Bitmap(objects.length), bytes: 0 });
  }

  async lookupAndLock(keys: readonly ObjectKey[]): Promise<Bitmap> {
    await this.#take("lookups", 0);
    return Bitmap.from(keys, ({ id }) => this.held.has(id));
  }

  async load(objects: readonly AdapterObject[]): Promise<Bitmap> {
    await this.#take("loads", objects.length * BLOCK_BYTES);
    return Bitmap.from(objects, ({ key: { id } }) => this.held.has(id));
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #take(what: Condition["hangs"], bytes: number): Promise<void> {
    const { latencyMs, bandwidth, hangs } = this.condition;
    if (hangs === what) await new Promise(() => {});
    await wait(this.#clock, latencyMs);
    const now = this.#clock.now();
    this.#isFreeAt = Math.max(now, this.#isFreeAt) + bytes / bandwidth * 1000;
    await wait(this.#clock, this.#isFreeAt - now);
  }
}

/** Replays requests one after the other through a real prefetch controller and a modelled engine. */
export async function runGate(
  requests: readonly TraceRequest[],
  scenario: Scenario,
  options: GateOptions = {},
): Promise<GateRun> {
  const clock = new SimClock();
  let run: GateRun | undefined;
  const running = replay(clock, requests, scenario, options).then((result) => run = result);
  await clock.settle();
  while (run === undefined && await clock.step());
  return await running;
}

async function replay(
  clock: SimClock,
  requests: readonly TraceRequest[],
  scenario: Scenario,
  { isGated = true, tokensPerSecond = 2_500 }: GateOptions,
): Promise<GateRun> {
  const adapter = new TraceAdapter(clock.view());
  const adapters = adapterSet([adapter], clock);
  using device = new HostDevice();
  using l1 = lruL1(device, clock, L1_BLOCKS * LAYOUT.byteLength);
  const blockBytes = 1024;
  // As blocks are larger than a batch, each is a batch of its own, and two are in flight.
  using scratch = scratchPool(blockBytes, 4);
  const barrier = new ForgetBarrier();
  const prefetch = new PrefetchController({
    l1,
    adapters,
    scratch,
    policy: retain,
    clock,
    barrier,
  });
  const rate = new PrefillRate();
  const keys = new Map<number, ObjectKey>();
  const times = { cached: [] as number[], computed: [] as number[], free: [] as number[] };
  for (const [i, { timestamp, "input_length": tokens, "hash_ids": ids }] of requests.entries()) {
    await clock.sleep(timestamp - clock.now());
    adapter.condition = scenario.at(i / requests.length);
    const computing = (chunk: number): number => {
      const from = chunk * BLOCK_TOKENS;
      const growth = (from + tokens) / 2 / DOUBLING_TOKENS;
      return (tokens - from) * (1 + growth) * 1000 / tokensPerSecond;
    };
    const chain = ids.slice(0, Math.floor((tokens - 1) / BLOCK_TOKENS)).map((id) =>
      keyOf(keys, id)
    );
    const startedAt = clock.now();
    const { length, leases } = await prefetch.prefetch([{ keys: chain, layout: LAYOUT }], {
      ...isGated ? { computeMs: (chunk) => rate.ms(chunk * BLOCK_TOKENS, tokens) ?? NaN } : {},
    });
    const matchMs = clock.now() - startedAt;
    l1.finishRead(leases.flat());
    const hits = chain.findIndex(({ id }) => !adapter.held.has(id));
    times.cached.push(matchMs + computing(length));
    times.computed.push(computing(0));
    times.free.push(computing(hits < 0 ? chain.length : hits));
    const position = length * BLOCK_TOKENS;
    rate.add({ tokens: tokens - position, ms: computing(length), position });
    if (scenario.isEmpty !== true) { for (const { id } of chain) adapter.held.add(id); }
  }
  for (const guard of adapters.all) guard.close();
  return { ...times, status: prefetch.reportStatus() };
}

function keyOf(keys: Map<number, ObjectKey>, id: number): ObjectKey {
  let key = keys.get(id);
  if (key === undefined) {
    const chunkHash = new Uint8Array(32);
    new DataView(chunkHash.buffer).setUint32(0, id);
    keys.set(id, key = new ObjectKey({ chunkHash, model: "trace", kvRank: 0 }));
  }
  return key;
}

/** Summary of times: median, 95th percentile and mean. */
export function summary(times: readonly number[]): { p50: number; p95: number; mean: number } {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(share * (sorted.length - 1))] ?? 0;
  return { p50: at(0.5), p95: at(0.95), mean: times.reduce((a, b) => a + b, 0) / times.length };
}
