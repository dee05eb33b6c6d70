import { assert, assertEquals, assertThrows } from "@std/assert";
import { copyOperations, type KvBlocks } from "../../../src/engine/kv_binding.ts";
import { kvLayout } from "../../../src/keys/kv_layout.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type {
  CopyOperation,
  CopyPath,
  DeviceBuffer,
  MemoryDevice,
} from "../../../src/memory/memory_device.ts";
import { forceCopyPath, WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { strided, watchCommands } from "../../support/copies.ts";
import { gpuTest } from "../../support/devices.ts";
import { testBytes, testKey } from "../../support/objects.ts";
import { type SeededRandom, seededRandom } from "../../support/random.ts";

const ENGINE = 4 | 8 | 128; // GPUBufferUsage.COPY_SRC | COPY_DST | STORAGE
const COPIED = 4 | 8;

/** The same memory on a device and on the host, which says what copies must do. */
class Twins implements Disposable {
  readonly #device: WebGpuDevice;
  readonly #buffers: { readonly gpu: GPUBuffer; readonly host: Uint8Array<ArrayBuffer> }[] = [];
  readonly #hostDevice = new HostDevice();

  constructor(device: WebGpuDevice) {
    this.#device = device;
  }

  /** Number of a new buffer with bytes of its own. */
  add(size: number, usage = ENGINE): number {
    const host = testBytes(testKey(this.#buffers.length), size);
    const gpu = this.#device.gpuDevice.createBuffer({ size, usage });
    this.#device.upload({ buffer: gpu, byteOffset: 0, byteLength: size }, [host]);
    return this.#buffers.push({ gpu, host }) - 1;
  }

  gpu(number: number): GPUBuffer {
    return this.#of(number).gpu;
  }

  /** Copies on both sides what `operationsOn` says with the buffers of each. */
  async copy(
    operationsOn: (bufferOf: (number: number) => DeviceBuffer) => readonly CopyOperation[],
  ): Promise<void> {
    this.#hostDevice.copy(operationsOn((number) => this.#of(number).host));
    assertEquals(await this.#device.copy(operationsOn((number) => this.gpu(number))), true);
  }

  async assertSame(what: string): Promise<void> {
    using readBack = await this.#device.readBack(
      this.#buffers.map(({ gpu, host }) => ({
        range: { buffer: gpu, byteOffset: 0, byteLength: host.byteLength },
        tailBytes: 0,
      })),
    );
    for (const [i, { host }] of this.#buffers.entries()) {
      let offset = 0;
      for (const part of readBack.objects[i] ?? []) {
        const expected = host.subarray(offset, offset += part.byteLength);
        assertSameBytes(part, expected, `${what}: buffer ${i} at ${offset - part.byteLength}`);
      }
      assertEquals(offset, host.byteLength);
    }
  }

  [Symbol.dispose](): void {
    for (const { gpu } of this.#buffers) gpu.destroy();
  }

  #of(number: number): { readonly gpu: GPUBuffer; readonly host: Uint8Array<ArrayBuffer> } {
    const buffer = this.#buffers[number];
    assert(buffer !== undefined);
    return buffer;
  }
}

/** Registers a test that runs with each path in turn. */
function pathTest(
  name: string,
  run: (device: WebGpuDevice, path: CopyPath) => Promise<void>,
): void {
  for (const path of ["kernel", "copies"] as const) {
    gpuTest(`${name} [${path}]`, async (gpu) => {
      using device = WebGpuDevice.adopt(gpu);
      await forceCopyPath(device, path);
      await run(device, path);
    });
  }
}

interface AnyLayout {
  readonly layout: ReturnType<typeof kvLayout>;
  readonly blocks: Omit<KvBlocks, "layers">;
  readonly tensorBytes: number;
  readonly offset: number;
}

/** A shape that an engine could have, with a sequence of two chunks somewhere in its memory. */
function anyLayout(random: SeededRandom): AnyLayout {
  const order = random.pick(["NHD", "HND"] as const);
  const dtype = random.pick(["f16", "f32", "i8"] as const);
  const layout = kvLayout({
    layers: 1 + random.below(4),
    kvHeads: 1 + random.below(5),
    headDim: random.pick([1, 3, 7, 8, 16, 33, 64, 100]),
    dtype,
    chunkTokens: 4 * (1 + random.below(12)),
    order,
  });
  const isPaged = random.chance(0.6);
  // Blocks are a multiple of 4 tokens, so that they are whole words whatever a token is.
  const blockTokens = isPaged ? 4 * (1 + random.below(6)) : 2 * layout.chunkTokens + 4;
  const count = Math.ceil(2 * layout.chunkTokens / blockTokens);
  const pages = count + random.below(4);
  const blockTable = Array.from({ length: pages }, (_, i) => i)
    .map((page) => ({ page, place: random.below(1000) }))
    .sort((a, b) => a.place - b.place).map(({ page }) => page).slice(0, count);
  const blockStrideBytes = blockTokens * layout.tokenBytes + 4 * random.below(9);
  const offset = 4 * random.below(80);
  const tensorBytes = pages * blockStrideBytes + 4 * random.below(5);
  return { layout, blocks: { blockTokens, blockTable, blockStrideBytes }, tensorBytes, offset };
}

pathTest("chunks of any shape are gathered and scattered as on the host", async (device, path) => {
  const commands = watchCommands(device.gpuDevice);
  for (let seed = 1; seed <= 30; seed++) {
    const random = seededRandom(seed);
    const { layout, blocks, tensorBytes, offset } = anyLayout(random);
    using twins = new Twins(device);
    const slab = twins.add(256 * Math.ceil((512 + 2 * layout.byteLength) / 256));
    const isPool = random.chance(0.5);
    const tensors = Array.from({ length: 2 * layout.layers }, (_, i) => {
      const number = isPool && i > 0 ? slab + 1 : twins.add(
        offset + (isPool ? 2 * layout.layers : 1) * tensorBytes,
        random.chance(0.9) ? ENGINE : COPIED,
      );
      return { number, byteOffset: offset + (isPool ? i * tensorBytes : 0) };
    });
    const kvOn = (bufferOf: (number: number) => DeviceBuffer): KvBlocks => {
      const [keys, values] = [0, 1].map((part) =>
        tensors.filter((_, i) => i % 2 === part).map(({ number, byteOffset }) => ({
          buffer: bufferOf(number),
          byteOffset,
          byteLength: tensorBytes,
        }))
      );
      assert(keys !== undefined && values !== undefined);
      const layers = keys.map((key, i) => ({ key, value: values[i] ?? key }));
      return { layers, ...blocks };
    };
    const byteLength = layout.byteLength;
    const what = `seed ${seed}`;
    // Both chunks with one call, the second one behind the first.
    await twins.copy((bufferOf) =>
      [0, 1].flatMap((chunk) => {
        const byteOffset = 256 * Math.ceil(chunk * byteLength / 256);
        const object = { buffer: bufferOf(slab), byteOffset, byteLength };
        return copyOperations("gather", layout, kvOn(bufferOf), chunk, object);
      })
    );
    await twins.assertSame(`${what}, gathered`);
    const tokens = 1 + random.below(layout.chunkTokens);
    await twins.copy((bufferOf) => {
      const object = { buffer: bufferOf(slab), byteOffset: 256, byteLength };
      return copyOperations("scatter", layout, kvOn(bufferOf), 1, object, tokens);
    });
    await twins.assertSame(`${what}, scattered`);
  }
  if (path === "copies") assertEquals(commands.dispatches, 0);
  else assert(commands.dispatches > 50, `only ${commands.dispatches} dispatches`);
});

pathTest("operations that overlap or depend on each other run in their order", async (device) => {
  for (let seed = 1; seed <= 15; seed++) {
    const random = seededRandom(seed);
    using twins = new Twins(device);
    const numbers = Array.from({ length: 4 }, () => twins.add(4096));
    const wanted = Array.from({ length: 60 }, () => {
      const from = random.below(numbers.length);
      return {
        from,
        to: (from + 1 + random.below(numbers.length - 1)) % numbers.length,
        sourceOffset: 4 * random.below(900),
        destinationOffset: 4 * random.below(900),
        byteLength: 4 * (1 + random.below(100)),
      };
    });
    // Only two buffers: nothing is read that is written, but much is written twice.
    const isPair = seed % 2 === 0;
    await twins.copy((bufferOf) =>
      wanted.map(({ from, to, ...operation }) => ({
        source: bufferOf(isPair ? 0 : from),
        destination: bufferOf(isPair ? 1 : to),
        ...operation,
      }))
    );
    await twins.assertSame(`seed ${seed}`);
  }
});

gpuTest("the copies between two buffers take one dispatch", async (gpu) => {
  const commands = watchCommands(gpu);
  using device = WebGpuDevice.adopt(gpu);
  await forceCopyPath(device, "kernel");
  using twins = new Twins(device);
  const [source, destination] = [twins.add(448 * 512), twins.add(448 * 256)];
  const operations = (bufferOf: (number: number) => DeviceBuffer): CopyOperation[] =>
    strided(bufferOf(source), bufferOf(destination), 448, 256);
  await twins.copy(operations);
  assertEquals({ ...commands }, { dispatches: 1, copies: 0 });
  await forceCopyPath(device, "copies");
  await twins.copy(operations);
  assertEquals({ ...commands }, { dispatches: 1, copies: 448 });
  await twins.assertSame("both");
});

gpuTest("more tiles than workgroups of one dimension are all copied", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  await forceCopyPath(device, "kernel");
  using twins = new Twins(device);
  const count = gpu.limits.maxComputeWorkgroupsPerDimension + 1000;
  const [source, destination] = [twins.add(count * 8), twins.add(count * 4)];
  await twins.copy((bufferOf) => strided(bufferOf(source), bufferOf(destination), count, 4));
  await twins.assertSame("all");
});

gpuTest("copies of one buffer after another use one table each time anew", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  await forceCopyPath(device, "kernel");
  using twins = new Twins(device);
  const numbers = Array.from({ length: 5 }, () => twins.add(2 ** 20));
  // Not awaited in between: the table of a call must not change what an earlier one copies.
  await Promise.all(
    [4, 3000, 64, 9000, 500].map((count, i) =>
      twins.copy((bufferOf) =>
        strided(bufferOf(numbers[i] ?? 0), bufferOf(numbers[(i + 1) % 5] ?? 0), count, 4 + 4 * i)
      )
    ),
  );
  await twins.assertSame("all");
});

gpuTest("buffers without STORAGE usage are copied, others beside them dispatched", async (gpu) => {
  const commands = watchCommands(gpu);
  using device = WebGpuDevice.adopt(gpu);
  await forceCopyPath(device, "kernel");
  using twins = new Twins(device);
  const [plain, engine, destination] = [
    twins.add(2 ** 16, COPIED),
    twins.add(2 ** 16),
    twins.add(2 ** 16),
  ];
  await twins.copy((bufferOf) => {
    const halves = strided(bufferOf(plain), bufferOf(destination), 64, 256);
    return halves.map((operation, i) =>
      i % 2 === 0 ? operation : { ...operation, source: bufferOf(engine) }
    );
  });
  assertEquals({ ...commands }, { dispatches: 1, copies: 32 });
  await twins.assertSame("all");
});

pathTest("a copy that the device refuses copies nothing, and answers false", async (device) => {
  const { gpuDevice } = device;
  using twins = new Twins(device);
  const [source, destination] = [twins.add(2 ** 16), twins.add(2 ** 16)];
  const adapter = await navigator.gpu.requestAdapter();
  const other = await adapter?.requestDevice();
  assert(other !== undefined);
  const foreign = other.createBuffer({ size: 2 ** 16, usage: ENGINE });
  const destroyed = gpuDevice.createBuffer({ size: 2 ** 16, usage: ENGINE });
  destroyed.destroy();
  for (const bad of [foreign, destroyed]) {
    for (const [from, to] of [[bad, twins.gpu(destination)], [twins.gpu(source), bad]] as const) {
      const good = strided(twins.gpu(source), twins.gpu(destination), 16, 256);
      const answer = device.copy([...good.slice(0, 8), ...strided(from, to, 8, 256, 8)]);
      assertEquals(await answer, false);
    }
  }
  await twins.assertSame("nothing was copied");
  foreign.destroy();
  await other.queue.onSubmittedWorkDone();
  other.destroy();
  const mapped = gpuDevice.createBuffer({ size: 2 ** 16, usage: ENGINE, mappedAtCreation: true });
  const into = strided(twins.gpu(source), mapped, 8, 256);
  assertThrows(() => device.copy(into), TypeError, "unmapped");
  mapped.destroy();
  await twins.copy((bufferOf) => strided(bufferOf(source), bufferOf(destination), 8, 256));
  await twins.assertSame("it goes on");
});

gpuTest("a table for which the device has no memory is a copy refused, once", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  await forceCopyPath(device, "kernel");
  using twins = new Twins(device);
  const [source, destination] = [twins.add(2 ** 16), twins.add(2 ** 16)];
  const create = gpu.createBuffer.bind(gpu);
  // What an exhausted device answers: a buffer that is invalid, and an error in the scope.
  gpu.createBuffer = (descriptor) => create({ ...descriptor, size: gpu.limits.maxBufferSize + 4 });
  const operations = strided(twins.gpu(source), twins.gpu(destination), 64, 256);
  assertEquals(await device.copy(operations), false);
  gpu.createBuffer = create;
  await twins.copy((bufferOf) => strided(bufferOf(source), bufferOf(destination), 64, 256));
  await twins.assertSame("the next one");
});

gpuTest("a device that is lost between copies takes them without throwing", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  await forceCopyPath(device, "kernel");
  using twins = new Twins(device);
  const [source, destination] = [twins.add(2 ** 16), twins.add(2 ** 16)];
  const copy = (): ReturnType<MemoryDevice["copy"]> =>
    device.copy(strided(twins.gpu(source), twins.gpu(destination), 64, 256));
  const before = copy();
  gpu.destroy();
  const answers = [before, copy()];
  await device.lost;
  answers.push(copy());
  for (const answer of await Promise.all(answers)) assertEquals(typeof answer, "boolean");
});
