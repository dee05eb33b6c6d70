import { delay } from "@std/async";
import { join } from "@std/path";
import { type MemoryDevice, TieredCache } from "../../mod.ts";
import { stagedOf } from "../support/l1.ts";
import { keysOf } from "./l2/objects.ts";
import type { Row } from "./rows.ts";
import { median, percentile } from "./statistics.ts";

const MIB = 2 ** 20;
const OBJECT_BYTES = 2 * MIB;
/** Most objects that are stored together, and loaded together. */
const MAX_OBJECTS = 96;
/** Timers are a little late anyhow: later than this, the event loop was blocked. */
const USUAL_MS = 1;
const PERCENTILES = [0.5, 0.99, 0.999];

/** What a timer of 1 ms met. */
class Lateness {
  /** By how much it was late, at each millisecond at which it was due. */
  readonly lateMs: number[] = [];
  /** How long the event loop could do nothing else, by round. */
  readonly blockedMs: number[] = [];
  /** Duration of each round. */
  readonly durationsMs: number[] = [];

  /** Runs a timer of 1 ms during `work`; returns how long that took. */
  async during(work: () => Promise<unknown>): Promise<number> {
    const start = performance.now();
    let blockedMs = 0;
    let last = start;
    const timer = setInterval(() => tick(), 1);
    const tick = (): void => {
      const now = performance.now();
      const lateMs = Math.max(0, now - last - 1);
      // While the event loop is blocked, a timer is due at each millisecond, and all are late.
      for (let late = lateMs; late >= 0; late--) this.lateMs.push(late);
      blockedMs += Math.max(0, lateMs - USUAL_MS);
      last = now;
    };
    try {
      await work();
      // What blocked the end of the work counts, too.
      tick();
    } finally {
      clearInterval(timer);
    }
    this.blockedMs.push(blockedMs);
    const durationMs = performance.now() - start;
    this.durationsMs.push(durationMs);
    return durationMs;
  }
}

/**
 * What the thread of the engine notices while objects are stored and loaded through fs, beside an
 * idle event loop in the same run.
 *
 * @param bytes How much is stored, and loaded.
 * @param options Further options of the adapter, by what is said of them in the rows.
 */
export async function benchEventLoop(
  device: MemoryDevice,
  directory: string,
  bytes: number,
  options: Readonly<Record<string, Readonly<Record<string, unknown>>>>,
): Promise<Row[]> {
  const layout = { byteLength: OBJECT_BYTES, fingerprint: new Uint8Array(8) };
  const source = new Uint8Array(OBJECT_BYTES);
  const pattern = crypto.getRandomValues(new Uint8Array(65_536));
  for (let at = 0; at < OBJECT_BYTES; at += pattern.length) source.set(pattern, at);
  const count = Math.min(MAX_OBJECTS, Math.ceil(bytes / OBJECT_BYTES));
  const rounds = Math.ceil(bytes / (count * OBJECT_BYTES));
  const gigabytes = count * OBJECT_BYTES / 1e9;
  const rows: Row[] = [];
  for (const [name, further] of Object.entries(options)) {
    const idle = new Lateness();
    const stored = new Lateness();
    const loaded = new Lateness();
    const waitedMs: number[] = [];
    const path = join(directory, `event-loop, ${device.type}, ${name}`);
    await using cache = await TieredCache.open({
      device,
      l1: { capacityBytes: 2 * count * OBJECT_BYTES },
      l2: [{ type: "fs", "base_path": path, ...further }],
      store: { maxQueuedBytes: count * OBJECT_BYTES },
    });
    // The first round warms up.
    for (let round = 0; round <= rounds; round++) {
      const into = (lateness: Lateness): Lateness => round === 0 ? new Lateness() : lateness;
      const keys = keysOf(`${name} ${round}`, count);
      const staged = stagedOf(cache.reserveWrite(keys, layout));
      for (const { range } of staged) device.upload(range, [source]);
      const before = cache.reportStatus().store.readBackMs;
      const storeMs = await into(stored).during(() => {
        cache.finishWrite(staged);
        return cache.flush();
      });
      if (round > 0) waitedMs.push(cache.reportStatus().store.readBackMs - before);
      cache.clearL1();
      const loadMs = await into(loaded).during(async () => {
        using hit = await cache.match(keys, layout);
        if (hit.length < keys.length) throw new Error(`${hit.length} of ${keys.length} loaded`);
      });
      await cache.forget({ keys });
      await into(idle).during(() => delay(storeMs + loadMs));
    }
    const suffix = name === "" ? "" : `, ${name}`;
    const note = (operation: string, medianMs: number): void => {
      const described = `${device.description}${suffix}`;
      rows.push({ device: described, operation, objectBytes: OBJECT_BYTES, medianMs });
    };
    for (const [what, { lateMs }] of Object.entries({ idle, stored, loaded })) {
      for (const share of PERCENTILES) {
        note(`1 ms timer late, ${what}, p${share * 100}`, percentile(lateMs, share));
      }
    }
    const idlePerMs = median(idle.blockedMs) / median(idle.durationsMs);
    for (const [what, { blockedMs, durationsMs }] of Object.entries({ stored, loaded })) {
      const ms = median(durationsMs);
      note(`${what}, per GB`, ms / gigabytes);
      note(
        `event loop blocked, per GB ${what}`,
        // What an idle event loop shows can be more.
        Math.max(0, median(blockedMs) - idlePerMs * ms) / gigabytes,
      );
    }
    note("waited for the device, per GB stored", median(waitedMs) / gigabytes);
  }
  return rows;
}
