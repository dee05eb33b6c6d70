import { HostDevice, TieredCache } from "../../mod.ts";
import { ObjectKey } from "../../src/keys/object_key.ts";
import { stagedOf } from "../support/l1.ts";
import type { Row } from "./rows.ts";
import { median } from "./statistics.ts";

const OBJECT_BYTES = 256;
const LAYOUT = { byteLength: OBJECT_BYTES, fingerprint: new Uint8Array(8) };
const SALT = "tenant";
/** Calls that are timed together, and how often. */
const CALLS = 50;
const ROUNDS = 9;

/** Different keys, the next ones with each call. */
class Keys {
  #next = 0;
  readonly #first = new ObjectKey({
    chunkHash: new Uint8Array(32),
    model: "bench",
    cacheSalt: SALT,
  });

  take(count: number): ObjectKey[] {
    return Array.from({ length: count }, () => {
      const hash = new Uint8Array(32);
      new DataView(hash.buffer).setUint32(0, this.#next++);
      return this.#first.withChunkHash(hash);
    });
  }
}

/** A call to be timed, with what belongs to it. */
interface Call {
  readonly operation: string;
  /** Objects that fit into L1 beside the `count` that are there. */
  readonly spare?: number;
  /** Makes a cache with `count` objects ready. */
  readonly prepare?: (cache: TieredCache, resident: readonly ObjectKey[], count: number) => void;
  readonly run: (cache: TieredCache, keys: Keys, resident: ObjectKey[]) => unknown;
}

function write(cache: TieredCache, keys: readonly ObjectKey[]): void {
  cache.finishWrite(stagedOf(cache.reserveWrite(keys, LAYOUT)));
}

/** As a `put` of many chunks does it: one by one, and finished together. */
function longPut(cache: TieredCache, keys: readonly ObjectKey[]): void {
  const staged = keys.flatMap((key) => stagedOf(cache.reserveWrite([key], LAYOUT)));
  cache.finishWrite(staged);
}

const CALLS_TO_TIME: readonly Call[] = [
  {
    operation: "put of a chunk, room is free",
    spare: 2 * CALLS * (ROUNDS + 1),
    run: (cache, keys) => write(cache, keys.take(1)),
  },
  {
    operation: "put of a chunk, L1 is full",
    run: (cache, keys) => write(cache, keys.take(1)),
  },
  {
    operation: "put of a chunk at a quota",
    spare: CALLS,
    prepare: (cache, _, count) => cache.quota.set(SALT, { l1Bytes: count * OBJECT_BYTES }),
    run: (cache, keys) => write(cache, keys.take(1)),
  },
  {
    operation: "put of a chunk behind pinned ones",
    spare: 1,
    prepare: (cache, resident) => cache.pin(resident),
    run: (cache, keys) => write(cache, keys.take(1)),
  },
  {
    operation: "put of a chunk behind leases",
    spare: 1,
    prepare: (cache, resident) => void cache.leaseResident(resident),
    run: (cache, keys) => write(cache, keys.take(1)),
  },
  {
    operation: "forget of one key",
    run: (cache, _, resident) => cache.forget({ keys: resident.splice(-1) }),
  },
  { operation: "reportStatus()", run: (cache) => cache.reportStatus() },
];

async function timeCall(call: Call, count: number): Promise<number> {
  const { spare = 0, prepare, run } = call;
  const capacityBytes = (count + spare) * OBJECT_BYTES;
  await using cache = await TieredCache.open({ device: new HostDevice(), l1: { capacityBytes } });
  const keys = new Keys();
  const resident = keys.take(count);
  for (let i = 0; i < count; i += 1_000) write(cache, resident.slice(i, i + 1_000));
  prepare?.(cache, resident, count);
  const times: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const start = performance.now();
    for (let i = 0; i < CALLS; i++) await run(cache, keys, resident);
    // In the first round the calls are compiled.
    if (round > 0) times.push((performance.now() - start) / CALLS);
  }
  return median(times);
}

/** A chunk's share of one put of `count` chunks into an L1 that is full of others. */
async function timeLongPut(count: number): Promise<number> {
  const capacityBytes = count * OBJECT_BYTES;
  await using cache = await TieredCache.open({ device: new HostDevice(), l1: { capacityBytes } });
  const keys = new Keys();
  const times: number[] = [];
  for (let round = 0; round < 4; round++) {
    const next = keys.take(count);
    const start = performance.now();
    longPut(cache, next);
    if (round > 0) times.push((performance.now() - start) / count);
  }
  return median(times);
}

/** Setting one quota among those of `count` tenants. */
async function timeQuota(count: number): Promise<number> {
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 20 },
    l2: [{ type: "dram" }],
  });
  const start = performance.now();
  for (let n = 0; n < count; n++) cache.quota.set(`tenant-${n}`, { l2Bytes: 2 ** 20 });
  return (performance.now() - start) / count;
}

/** What a call costs with so many objects in L1: it should not depend on them. */
export async function benchFlat(counts: readonly number[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const count of counts) {
    const note = (operation: string, medianMs: number): void => {
      const device = `${count.toLocaleString("en")} objects`;
      rows.push({ device, operation, objectBytes: OBJECT_BYTES, medianMs });
    };
    for (const call of CALLS_TO_TIME) note(call.operation, await timeCall(call, count));
    note("a chunk of one put that fills L1", await timeLongPut(count));
    note("quota.set(), as many tenants", await timeQuota(count));
  }
  return rows;
}
