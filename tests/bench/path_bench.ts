import { delay } from "@std/async";
import { join } from "@std/path";
import { type MemoryDevice, TieredCache } from "../../mod.ts";
import { ObjectKey } from "../../src/keys/object_key.ts";
import { sha256 } from "../../src/base/digest.ts";
import { stagedOf } from "../support/l1.ts";
import { type Row, time } from "./rows.ts";
import { median } from "./statistics.ts";

const MIB = 2 ** 20;
const MOST_BYTES = 96 * MIB;
/** What a cache prepares in the background when it is opened is ready by then, in milliseconds. */
const LATER_MS = 700;

/**
 * The way of objects from L1 into a directory and back, beside the plainest loop; at most 96 MiB, or
 * `mostBytes`, but one object.
 */
export async function benchPath(
  device: MemoryDevice,
  objectBytes: number,
  directory: string,
  rounds: number,
  mostBytes: number,
): Promise<Row[]> {
  const count = Math.max(1, Math.floor(Math.min(MOST_BYTES, mostBytes) / objectBytes));
  const layout = { byteLength: objectBytes, fingerprint: new Uint8Array(8) };
  const payload = crypto.getRandomValues(new Uint8Array(65536));
  const source = new Uint8Array(objectBytes);
  for (let at = 0; at < objectBytes; at += payload.length) source.set(payload, at);
  const l1 = { capacityBytes: 2 * count * objectBytes };
  const times: Record<string, number[]> = {};
  const note = (name: string, ms: number): void => void (times[name] ??= []).push(ms);

  for (let round = 0; round < rounds; round++) {
    const base = join(directory, `${device.type}-${objectBytes}-${round}`);
    const l2 = [{ type: "fs", base_path: base }];
    const keys = Array.from(
      { length: count },
      (_, i) =>
        new ObjectKey({ chunkHash: sha256(Uint8Array.of(i, i >> 8, round)), model: "bench" }),
    );
    {
      await using cache = await TieredCache.open({ device, l1, l2 });
      const staged = stagedOf(cache.reserveWrite(keys, layout));
      for (const { range } of staged) device.upload(range, [source]);
      cache.finishWrite(staged);
      note("store", await time(() => cache.flush()));
      note(
        "match in L1",
        await time(async () => (await cache.match(keys, layout))[Symbol.dispose]()),
      );
    }
    if (objectBytes === MIB) {
      await using cache = await TieredCache.open({ device, l1, l2 });
      await delay(LATER_MS);
      note(
        "load a moment after a restart",
        await time(async () => (await cache.match(keys, layout))[Symbol.dispose]()),
      );
    }
    {
      await using cache = await TieredCache.open({ device, l1, l2 });
      const match = async (): Promise<void> => (await cache.match(keys, layout))[Symbol.dispose]();
      note("load after a restart", await time(match));
      cache.clearL1();
      note("load", await time(match));
    }
    note("plain store", await time(() => plainStore(base, count, source)));
    note("plain load", await time(() => plainLoad(base, count, source.slice(), device)));
    await Deno.remove(base, { recursive: true });
  }

  const limits: Record<string, string> = {
    "store": "plain store",
    "load": "plain load",
    "load after a restart": "plain load",
    "load a moment after a restart": "plain load",
  };
  return Object.entries(times).map(([operation, ms]) => {
    const medianMs = median(ms);
    const limit = limits[operation];
    return {
      device: device.description,
      operation,
      objectBytes,
      medianMs,
      gbps: count * objectBytes / medianMs / 1e6,
      ...(limit === undefined ? {} : { ofLimit: median(times[limit] ?? []) / medianMs }),
    };
  });
}

/** Temporary file, write, rename: one after the other, from host memory, without integrity. */
async function plainStore(base: string, count: number, source: Uint8Array): Promise<void> {
  for (let i = 0; i < count; i++) {
    const path = join(base, `plain-${i}`);
    using file = await Deno.open(`${path}.tmp`, { write: true, createNew: true });
    for (let done = 0; done < source.length;) done += await file.write(source.subarray(done));
    await Deno.rename(`${path}.tmp`, path);
  }
}

/** Open, read into one reused buffer, upload: one after the other, without integrity. */
async function plainLoad(
  base: string,
  count: number,
  buffer: Uint8Array<ArrayBuffer>,
  device: MemoryDevice,
): Promise<void> {
  const slab = device.createSlab(buffer.length);
  for (let i = 0; i < count; i++) {
    using file = await Deno.open(join(base, `plain-${i}`));
    for (let done = 0; done < buffer.length;) done += await file.read(buffer.subarray(done)) ?? NaN;
    device.upload({ buffer: slab.buffer, byteOffset: 0, byteLength: buffer.length }, [buffer]);
  }
  device.destroySlab(slab);
}
