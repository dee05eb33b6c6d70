import { copyOperations, type KvBlocks } from "../../src/engine/kv_binding.ts";
import { kvLayout } from "../../src/keys/kv_layout.ts";
import type { CopyOperation } from "../../src/memory/memory_device.ts";
import { forceCopyPath, type WebGpuDevice } from "../../src/memory/webgpu_device.ts";
import { type Row, time } from "./rows.ts";
import { median } from "./statistics.ts";

const LAYOUT = kvLayout({
  layers: 28,
  kvHeads: 8,
  headDim: 128,
  dtype: "f16",
  chunkTokens: 256,
  order: "HND",
});
const PATHS = [
  ["by the kernel", "kernel"],
  ["one by one", "copies"],
  ["as measured", undefined],
] as const;
/** The chunks of one measurement, and those for which the engine's tensors have room. */
const CHUNKS = 4;

/**
 * Chunks to and from the tensors of an engine whose heads come first, beside one plain copy of as
 * many bytes within the device: by the kernel, one by one, and by the path that the device takes
 * after its own measurement.
 */
export async function benchCopies(device: WebGpuDevice, rounds: number): Promise<Row[]> {
  const { gpuDevice } = device;
  using buffers = new DisposableStack();
  const create = (size: number): GPUBuffer => {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    return buffers.adopt(gpuDevice.createBuffer({ size, usage }), (buffer) => buffer.destroy());
  };
  const tensor = (): GPUBuffer => create(CHUNKS * LAYOUT.tensorBytes);
  const layers = Array.from({ length: LAYOUT.layers }, () => ({ key: tensor(), value: tensor() }));
  const kv: KvBlocks = { layers, blockTokens: CHUNKS * LAYOUT.chunkTokens };
  const total = CHUNKS * LAYOUT.byteLength;
  const [objects, other] = [create(total), create(total)];
  const operationsOf = (direction: "gather" | "scatter"): CopyOperation[] =>
    Array.from({ length: CHUNKS }, (_, chunk) => {
      const byteOffset = chunk * LAYOUT.byteLength;
      const object = { buffer: objects, byteOffset, byteLength: LAYOUT.byteLength };
      return copyOperations(direction, LAYOUT, kv, chunk, object);
    }).flat();
  const gather = operationsOf("gather");
  const scatter = operationsOf("scatter");
  const plain: CopyOperation = {
    source: other,
    sourceOffset: 0,
    destination: objects,
    destinationOffset: 0,
    byteLength: total,
  };

  const idle = (): Promise<undefined> => gpuDevice.queue.onSubmittedWorkDone();
  await idle();
  // What a wait costs by itself is not the copies'.
  const waitMs = Math.min(await time(idle), await time(idle), await time(idle));
  const msOf = async (operations: readonly CopyOperation[]): Promise<number> =>
    await time(async () => {
      device.copy(operations);
      await idle();
    }) - waitMs;
  // The device measures which path is faster when it reads back the first time after that.
  device.copy(gather);
  const range = { buffer: objects, byteOffset: 0, byteLength: LAYOUT.byteLength };
  (await device.readBack([{ range, tailBytes: 0 }]))[Symbol.dispose]();

  const rows: Row[] = [];
  const plainMs: number[] = [];
  const addRow = (operation: string, ms: readonly number[], ofLimit?: number): void => {
    const medianMs = median(ms);
    rows.push({
      device: device.description,
      operation,
      objectBytes: LAYOUT.byteLength,
      medianMs: medianMs / CHUNKS,
      gbps: total / medianMs / 1e6,
      ...(ofLimit === undefined ? {} : { ofLimit }),
    });
  };
  for (const [words, path] of PATHS) {
    await forceCopyPath(device, path);
    for (const [what, operations] of Object.entries({ gather, scatter })) {
      const ms: number[] = [];
      const shares: number[] = [];
      // The first round touches memory that was never used.
      for (let round = 0; round <= rounds; round++) {
        const limit = await msOf([plain]);
        const own = await msOf(operations);
        if (round === 0) continue;
        plainMs.push(limit);
        ms.push(own);
        shares.push(limit / own);
      }
      addRow(`${what} of a chunk, ${words}`, ms, median(shares));
    }
  }
  await forceCopyPath(device, undefined);
  addRow("plain copy of a chunk", plainMs);
  return rows;
}
