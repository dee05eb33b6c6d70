import { ObjectKey } from "../../src/keys/object_key.ts";
import { sha256 } from "../../src/base/digest.ts";
import type { MemoryDevice, MemoryRange } from "../../src/memory/memory_device.ts";
import type { WebGpuDevice } from "../../src/memory/webgpu_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { stagedOf } from "../support/l1.ts";
import { type Row, time } from "./rows.ts";
import { median, percentile } from "./statistics.ts";

const MIB = 2 ** 20;
const CHUNKS = 1_000;

function keysOf(count: number, round = 0): ObjectKey[] {
  return Array.from(
    { length: count },
    (_, i) => new ObjectKey({ chunkHash: sha256(Uint8Array.of(i, i >> 8, round)), model: "bench" }),
  );
}

/** What L1 itself costs: no byte moves. */
export async function benchL1(device: MemoryDevice): Promise<Row[]> {
  const layout = { byteLength: 1024, fingerprint: new Uint8Array(8) };
  await using cache = await TieredCache.open({ device, l1: { capacityBytes: 16 * MIB } });
  const keys = keysOf(CHUNKS);
  const reserve: number[] = [];
  const match: number[] = [];
  for (let round = 0; round < 20; round++) {
    // What the device has still to confirm cannot be cleared.
    await cache.flush();
    cache.clearL1();
    reserve.push(
      await time(() => {
        cache.finishWrite(stagedOf(cache.reserveWrite(keys, layout)));
      }),
    );
  }
  await cache.flush();
  for (let round = 0; round < 500; round++) {
    match.push(await time(async () => (await cache.match(keys, layout))[Symbol.dispose]()));
  }
  const row = { device: device.description, objectBytes: layout.byteLength };
  return [
    { ...row, operation: "match 1,000 resident, p50", medianMs: median(match) },
    { ...row, operation: "match 1,000 resident, p99", medianMs: percentile(match, 0.99) },
    { ...row, operation: "reserve + finish 1,000", medianMs: median(reserve) },
  ];
}

/** Bytes between host and device, beside the plainest use of the device's own interface. */
export async function benchTransfers(device: WebGpuDevice, rounds: number): Promise<Row[]> {
  const objectBytes = 2 * MIB;
  const count = 32;
  const total = count * objectBytes;
  const slab = device.createSlab(total);
  const ranges = Array.from({ length: count }, (_, i): MemoryRange => ({
    buffer: slab.buffer,
    byteOffset: i * objectBytes,
    byteLength: objectBytes,
  }));
  const source = crypto.getRandomValues(new Uint8Array(65_536));
  const bytes = new Uint8Array(objectBytes);
  for (let at = 0; at < objectBytes; at += source.length) bytes.set(source, at);
  const times: Record<string, number[]> = {
    "upload": [],
    "plain upload": [],
    "read-back": [],
    "plain read-back": [],
  };
  const idle = (): Promise<undefined> => device.gpuDevice.queue.onSubmittedWorkDone();
  const plain = new PlainTransfers(device.gpuDevice, slab.buffer as GPUBuffer, total);
  for (let round = 0; round < rounds; round++) {
    await idle();
    times["upload"]?.push(
      await time(async () => {
        for (const range of ranges) device.upload(range, [bytes]);
        await idle();
      }),
    );
    times["plain upload"]?.push(await time(() => plain.upload(bytes, count)));
    times["read-back"]?.push(
      await time(async () => {
        (await device.readBack(ranges.map((range) => ({ range, tailBytes: 64 }))))
          [Symbol.dispose]();
      }),
    );
    times["plain read-back"]?.push(await time(() => plain.readBack()));
  }
  plain.destroy();
  device.destroySlab(slab);
  return Object.entries(times).map(([operation, ms]): Row => {
    const medianMs = median(ms);
    const limit = times[`plain ${operation}`];
    return {
      device: device.description,
      operation: `${operation}, 64 MiB`,
      objectBytes,
      medianMs,
      gbps: total / medianMs / 1e6,
      ...(limit === undefined ? {} : { ofLimit: median(limit) / medianMs }),
    };
  });
}

/** The shortest way to move all bytes of a buffer, with one staging buffer that is reused. */
class PlainTransfers {
  readonly #device: GPUDevice;
  readonly #buffer: GPUBuffer;
  readonly #staging: GPUBuffer;

  constructor(device: GPUDevice, buffer: GPUBuffer, byteLength: number) {
    this.#device = device;
    this.#buffer = buffer;
    this.#staging = device.createBuffer({
      size: byteLength,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  async upload(bytes: Uint8Array<ArrayBuffer>, count: number): Promise<void> {
    const { queue } = this.#device;
    for (let i = 0; i < count; i++) queue.writeBuffer(this.#buffer, i * bytes.length, bytes);
    queue.submit([]);
    await queue.onSubmittedWorkDone();
  }

  async readBack(): Promise<void> {
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(this.#buffer, 0, this.#staging, 0, this.#staging.size);
    this.#device.queue.submit([encoder.finish()]);
    await this.#staging.mapAsync(GPUMapMode.READ);
    this.#staging.getMappedRange();
    this.#staging.unmap();
  }

  destroy(): void {
    this.#staging.destroy();
  }
}
