import { gpuTest } from "../../support/devices.ts";
import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import {
  type CpuKvTensorPair,
  createCpuModel,
} from "../../../docs/examples/transformer/cpu_model.ts";
import type { LanguageModel } from "../../../docs/examples/transformer/language_model.ts";
import {
  DEMO_CONFIG,
  kvBytesPerToken,
  kvDim,
  type ModelConfig,
} from "../../../docs/examples/transformer/model_config.ts";
import { createWeights } from "../../../docs/examples/transformer/weights.ts";
import {
  createWebGpuModel,
  type GpuKvTensorPair,
} from "../../../docs/examples/transformer/webgpu_model.ts";

/** Small, yet its keys fill three attention windows and its prompts three blocks of rows. */
const CONFIG: ModelConfig = {
  layers: 2,
  modelDim: 64,
  heads: 4,
  kvHeads: 2,
  headDim: 32,
  ffnDim: 88,
  vocab: 256,
  contextTokens: 601,
  ropeBase: 10000,
  seed: 7,
};
const NAN_BYTE = 0xff;

/** A model and access to the bytes of its cache, wherever they are. */
interface Subject {
  readonly model: LanguageModel;
  /** K, then V of each layer, the first `tokens` tokens. */
  read(tokens: number): Promise<Uint8Array<ArrayBuffer>[]>;
  /** Overwrites the start of K, then V of each layer. */
  write(parts: readonly Uint8Array<ArrayBuffer>[]): void;
}

function cpuSubject(model: LanguageModel, kv: readonly CpuKvTensorPair[]): Subject {
  const tensors = kv.flatMap(({ key, value }) => [key, value]);
  const tokenBytes = kvDim(model.config) * 4;
  return {
    model,
    read: (tokens) =>
      Promise.resolve(tensors.map((tensor) => tensor.slice(0, tokens * tokenBytes))),
    write: (parts) => parts.forEach((part, i) => tensors[i]?.set(part)),
  };
}

function gpuSubject(
  device: GPUDevice,
  model: LanguageModel,
  kv: readonly GpuKvTensorPair[],
): Subject {
  const tensors = kv.flatMap(({ key, value }) => [key, value]);
  const tokenBytes = kvDim(model.config) * 4;
  return {
    model,
    async read(tokens) {
      const size = tokens * tokenBytes;
      const staging = tensors.map(() =>
        device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST })
      );
      const encoder = device.createCommandEncoder();
      staging.forEach((buffer, i) => {
        const tensor = tensors[i];
        if (tensor !== undefined) encoder.copyBufferToBuffer(tensor, 0, buffer, 0, size);
      });
      device.queue.submit([encoder.finish()]);
      await Promise.all(staging.map((buffer) => buffer.mapAsync(GPUMapMode.READ)));
      return staging.map((buffer) => {
        const bytes = new Uint8Array(buffer.getMappedRange().slice(0));
        buffer.destroy();
        return bytes;
      });
    },
    write(parts) {
      parts.forEach((part, i) => {
        const tensor = tensors[i];
        if (tensor !== undefined) device.queue.writeBuffer(tensor, 0, part);
      });
    },
  };
}

function randomInts(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 0x100000000 * below);
  };
}

function prompt(length: number, seed = 1): Uint32Array {
  const random = randomInts(seed);
  return Uint32Array.from({ length }, () => random(CONFIG.vocab));
}

/** Fills the whole cache with NaN to detect reads of unwritten rows. */
function poison({ model, write }: Subject): void {
  const bytes = model.config.contextTokens * kvDim(model.config) * 4;
  write(model.kv.flatMap(() => [1, 2].map(() => new Uint8Array(bytes).fill(NAN_BYTE))));
}

/** Logits and cache after the prompt was given in pieces that end at `ends`. */
async function runInPieces(
  subject: Subject,
  tokens: Uint32Array,
  ends: readonly number[],
): Promise<{ logits: Float32Array; kv: Uint8Array[] }> {
  poison(subject);
  let logits = new Float32Array();
  let start = 0;
  for (const end of ends) {
    logits = await subject.model.forward(tokens.slice(0, end), start);
    start = end;
  }
  return { logits, kv: await subject.read(tokens.length) };
}

async function checkBatching(subject: Subject): Promise<void> {
  const long = prompt(CONFIG.contextTokens);
  const whole = await runInPieces(subject, long, [long.length]);
  assert(whole.logits.every(Number.isFinite));
  const random = randomInts(3);
  for (let round = 0; round < 4; round++) {
    const splits = Array.from({ length: 3 }, () => 1 + random(long.length - 1));
    const ends = [...new Set(splits)].sort((a, b) => a - b);
    assertEquals(await runInPieces(subject, long, [...ends, long.length]), whole, `${ends}`);
  }
  const short = long.slice(0, 35);
  const single = Array.from(short, (_, i) => i + 1);
  assertEquals(
    await runInPieces(subject, short, single),
    await runInPieces(subject, short, [short.length]),
  );
}

async function checkRestore(subject: Subject): Promise<void> {
  const tokens = prompt(300);
  const expected = await subject.model.forward(tokens, 0);
  const saved = await subject.read(280);
  poison(subject);
  subject.write(saved);
  assertEquals(await subject.model.forward(tokens, 280), expected);
}

async function checkArguments(model: LanguageModel): Promise<void> {
  const rejects = (tokens: Uint32Array, start: number, message: string): Promise<Error> =>
    assertRejects(() => model.forward(tokens, start), RangeError, message);
  await rejects(new Uint32Array(), 0, "must hold 1 to 601 ids, received 0");
  await rejects(new Uint32Array(602), 0, "must hold 1 to 601 ids, received 602");
  await rejects(prompt(4), 4, "start must be an integer from 0 to 3, received 4");
  await rejects(prompt(4), -1, "received -1");
  await rejects(prompt(4), 0.5, "received 0.5");
  await rejects(Uint32Array.of(1, 256), 0, "below 256, received 256 at position 1");
}

async function checkProgress(model: LanguageModel): Promise<void> {
  const seen: [number, number][] = [];
  await model.forward(prompt(600), 20, (done, total) => seen.push([done, total]));
  assertEquals(seen.at(-1), [580, 580]);
  assert(seen.every(([done], i) => i === 0 || done > (seen[i - 1]?.[0] ?? 0)));
}

async function checkOneAtATime(model: LanguageModel): Promise<void> {
  const first = model.forward(prompt(64), 0);
  await assertRejects(() => model.forward(prompt(64), 0), Error, "another forward");
  await first;
}

Deno.test("CPU: rows do not depend on how a prompt is batched", async () => {
  using model = createCpuModel(CONFIG);
  await checkBatching(cpuSubject(model, model.kv));
});

Deno.test("CPU: a restored cache continues with the same logits", async () => {
  using model = createCpuModel(CONFIG);
  await checkRestore(cpuSubject(model, model.kv));
});

Deno.test("CPU: arguments, progress and overlapping calls", async () => {
  using model = createCpuModel(CONFIG);
  await checkArguments(model);
  await checkProgress(model);
  await checkOneAtATime(model);
});

Deno.test("CPU: a disposed model refuses to run", async () => {
  const model = createCpuModel(CONFIG);
  model[Symbol.dispose]();
  model[Symbol.dispose]();
  await assertRejects(() => model.forward(prompt(4), 0), Error, "disposed");
});

Deno.test("the seed decides the weights and the logits", async () => {
  assertEquals(createWeights(CONFIG), createWeights(CONFIG));
  using one = createCpuModel(CONFIG);
  using same = createCpuModel(CONFIG);
  using other = createCpuModel({ ...CONFIG, seed: CONFIG.seed + 1 });
  const logits = await one.forward(prompt(20), 0);
  assertEquals(await same.forward(prompt(20), 0), logits);
  assertNotEquals(await other.forward(prompt(20), 0), logits);
});

Deno.test("logits depend on the order of earlier tokens", async () => {
  using model = createCpuModel(CONFIG);
  const tokens = prompt(50);
  const swapped = tokens.slice();
  [swapped[3], swapped[4]] = [tokens[4] ?? 0, tokens[3] ?? 0];
  assertNotEquals(await model.forward(swapped, 0), await model.forward(tokens, 0));
});

Deno.test("the weights of the demo repeat and its cache is small", () => {
  const { embedding } = createWeights(DEMO_CONFIG);
  const variance = embedding.reduce((sum, value) => sum + value ** 2, 0) / embedding.length;
  assert(Math.abs(variance - 1) < 0.05);
  assertEquals(kvBytesPerToken(DEMO_CONFIG), 2560);
});

Deno.test("a config out of range is refused", () => {
  const refuses = (change: Partial<ModelConfig>, message: string): Error =>
    assertThrows(() => createCpuModel({ ...CONFIG, ...change }), RangeError, message);
  refuses({ layers: 0 }, "layers must be");
  refuses({ heads: 3 }, "heads must be a multiple of 2");
  refuses({ headDim: 36 }, "headDim must be a multiple of 8");
  refuses({ ffnDim: 90 }, "received 90");
  refuses({ seed: -1 }, "seed must be");
  refuses({ ropeBase: Number.NaN }, "ropeBase must be above 1");
  refuses({ headDim: 136 }, "at most 256, received 272");
});

gpuTest("WebGPU: rows do not depend on how a prompt is batched", async (device) => {
  using model = createWebGpuModel(device, CONFIG);
  await checkBatching(gpuSubject(device, model, model.kv));
});

gpuTest("WebGPU: a restored cache continues with the same logits", async (device) => {
  using model = createWebGpuModel(device, CONFIG);
  await checkRestore(gpuSubject(device, model, model.kv));
});

gpuTest("WebGPU: arguments, progress and overlapping calls", async (device) => {
  using model = createWebGpuModel(device, CONFIG);
  await checkArguments(model);
  await checkProgress(model);
  await checkOneAtATime(model);
});

gpuTest("WebGPU and CPU agree on logits and cache", async (device) => {
  // A second shape: heads that do not share a K/V head evenly by four, odd widths, one window.
  const shapes: ModelConfig[] = [
    CONFIG,
    { ...CONFIG, heads: 6, headDim: 16, modelDim: 40, contextTokens: 301, vocab: 260 },
  ];
  for (const config of shapes) {
    using gpu = createWebGpuModel(device, config);
    using cpu = createCpuModel(config);
    const tokens = prompt(301);
    const expected = await cpu.forward(tokens, 0);
    assertClose(await gpu.forward(tokens, 0), expected);
    const cpuKv = await cpuSubject(cpu, cpu.kv).read(tokens.length);
    const gpuKv = await gpuSubject(device, gpu, gpu.kv).read(tokens.length);
    gpuKv.forEach((part, i) => assertClose(floats(part), floats(cpuKv[i])));
  }
});

gpuTest("WebGPU: dispose destroys the buffers, not the device", async (device) => {
  const model = createWebGpuModel(device, CONFIG);
  await model.forward(prompt(4), 0);
  const key = model.kv[0]?.key;
  assert(key !== undefined);
  model[Symbol.dispose]();
  model[Symbol.dispose]();
  await assertRejects(() => model.forward(prompt(4), 0), Error, "disposed");
  device.pushErrorScope("validation");
  const encoder = device.createCommandEncoder();
  encoder.clearBuffer(key, 0, 4);
  device.queue.submit([encoder.finish()]);
  assert((await device.popErrorScope()) !== null);
  using another = createWebGpuModel(device, CONFIG);
  assert((await another.forward(prompt(4), 0)).every(Number.isFinite));
});

function floats(bytes: Uint8Array<ArrayBuffer> | undefined): Float32Array {
  return new Float32Array(bytes?.buffer ?? new ArrayBuffer());
}

function assertClose(actual: Float32Array, expected: Float32Array): void {
  assertEquals(actual.length, expected.length);
  assert(expected.length > 0);
  const scale = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  const worst = actual.reduce(
    (max, value, i) => Math.max(max, Math.abs(value - (expected[i] ?? Number.NaN))),
    0,
  );
  assert(worst <= 1e-3 * scale, `differs by ${worst} at a scale of ${scale}`);
}
