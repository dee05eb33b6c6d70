import { concatParts } from "../../adapter/contract.ts";
import { catchGpuErrors } from "../../memory/gpu_errors.ts";
import type { MemoryDevice } from "../../memory/memory_device.ts";
import { WebGpuDevice } from "../../memory/webgpu_device.ts";
import type { KvTensors } from "../kv_binding.ts";
import type { PrefixHit } from "../prefix_hit.ts";
import { type DecoderSignature, UnsupportedModelError } from "./decoder_signature.ts";
import type { OrtTensor, OrtTensorFactory } from "./ort.ts";

/** K and V of one layer. */
export interface LayerTensors {
  /** `[1, kvHeads, tokens, headDim]`. */
  readonly key: OrtTensor;
  /** `[1, kvHeads, tokens, headDim]`. */
  readonly value: OrtTensor;
}

/** Computed or restored K and V of the first tokens of a sequence. */
export interface Past {
  /** Number of tokens. */
  readonly tokens: number;
  /** The tensors by layer. */
  readonly layers: readonly LayerTensors[];
}

/** The memory of a session's K and V, shared with the cache. */
export interface KvMemory {
  /** Execution provider that computes in this memory. */
  readonly provider: "webgpu" | "wasm";
  /** Description of the device, on which the bits of KV depend. */
  readonly description: string;
  /** Allocates K and V of a hit, to be filled by copies. */
  allocate(tokens: number): Past;
  /** The K and V of a past, in the form the cache takes. */
  kvOf(past: Past): KvTensors;
  /** Reads row `row` of a tensor `[1, rows, columns]`. */
  readRow(tensor: OrtTensor, row: number): Promise<Float32Array>;
}

/** Options of a session that computes on the device of a cache and keeps its outputs there. */
export function sessionOptionsFor(device: MemoryDevice): object {
  if (!(device instanceof WebGpuDevice)) {
    return { executionProviders: ["wasm"], preferredOutputLocation: "cpu" };
  }
  return {
    executionProviders: [{ name: "webgpu", device: device.gpuDevice }],
    preferredOutputLocation: "gpu-buffer",
  };
}

/**
 * Creates the memory that sessions share with a cache on `device`.
 *
 * @throws {UnsupportedModelError} If the device lacks what the model needs.
 */
export function kvMemoryFor(
  device: MemoryDevice,
  signature: DecoderSignature,
  tensors: OrtTensorFactory,
): KvMemory {
  if (device instanceof WebGpuDevice) return new GpuKvMemory(device, signature, tensors);
  if (device.type === "host") return new HostKvMemory(signature, tensors);
  throw new UnsupportedModelError(
    `The device of the cache must be a GPUDevice or host memory: received ${device.description}`,
  );
}

/**
 * Throws unless a past has all of its tokens, of one sequence, in the shape of the model. A model
 * that drops tokens cannot be cached by prefix.
 *
 * @throws {RangeError} If a tensor has other dimensions or another element type.
 */
export function checkPast({ tokens, layers }: Past, signature: DecoderSignature): void {
  const { kvHeads, headDim, ortType } = signature;
  const expected = `${ortType} [${[1, kvHeads, tokens, headDim]}]`;
  for (const tensor of layers.flatMap(({ key, value }) => [key, value])) {
    const received = `${tensor.type} [${tensor.dims}]`;
    if (received === expected) continue;
    throw new RangeError(
      `K and V of ${tokens} tokens of one sequence must be ${expected}: received ${received}`,
    );
  }
}

/** Releases the tensors of a past. */
export function disposePast({ layers }: Past): void {
  for (const { key, value } of layers) {
    key.dispose();
    value.dispose();
  }
}

/**
 * Copies a hit into a new past; returns `undefined` if it is empty or the device rejects the copy.
 */
export async function restorePast(hit: PrefixHit, memory: KvMemory): Promise<Past | undefined> {
  if (hit.tokens === 0) return undefined;
  const past = memory.allocate(hit.tokens);
  let isCopied = false;
  try {
    isCopied = await hit.scatterTo({ layers: memory.kvOf(past), blockTokens: past.tokens });
  } finally {
    if (!isCopied) disposePast(past);
  }
  return isCopied ? past : undefined;
}

class GpuKvMemory implements KvMemory {
  readonly provider = "webgpu";
  readonly description: string;
  readonly #device: WebGpuDevice;
  readonly #signature: DecoderSignature;
  readonly #tensors: OrtTensorFactory;

  constructor(device: WebGpuDevice, signature: DecoderSignature, tensors: OrtTensorFactory) {
    if (signature.dtype === "f16" && !device.gpuDevice.features.has("shader-f16")) {
      throw new UnsupportedModelError(
        "A model with K and V of float16 needs a GPUDevice with the feature shader-f16: request " +
          "it, let the cache request its device, or use the model in float32",
      );
    }
    this.#device = device;
    this.#signature = signature;
    this.#tensors = tensors;
    this.description = device.description;
  }

  allocate(tokens: number): Past {
    const { layers, kvHeads, headDim, ortType, dtype } = this.#signature;
    const dims = [1, kvHeads, tokens, headDim];
    const size = kvHeads * tokens * headDim * (dtype === "f16" ? 2 : 4);
    const { gpuDevice } = this.#device;
    const create = (): OrtTensor => {
      const buffer = gpuDevice.createBuffer({
        label: "kvtier past",
        // Shaders read vectors of 16 bytes.
        size: Math.ceil(size / 16) * 16,
        usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      });
      return this.#tensors.ofBuffer(ortType, buffer, dims);
    };
    // A device that lacks the memory rejects the copies into it.
    const { result } = catchGpuErrors(
      gpuDevice,
      () => Array.from({ length: layers }, () => ({ key: create(), value: create() })),
    );
    return { tokens, layers: result };
  }

  kvOf({ layers }: Past): KvTensors {
    return layers.map(({ key, value }) => ({
      key: key.gpuBuffer as GPUBuffer,
      value: value.gpuBuffer as GPUBuffer,
    }));
  }

  async readRow(tensor: OrtTensor, row: number): Promise<Float32Array> {
    const columns = tensor.dims.at(-1) ?? 0;
    const elementBytes = tensor.type === "float16" ? 2 : 4;
    const start = row * columns * elementBytes;
    // Copies between buffers are multiples of 4 bytes.
    const before = start % 4;
    const byteLength = Math.ceil((before + columns * elementBytes) / 4) * 4;
    const buffer = tensor.gpuBuffer as GPUBuffer;
    using read = await this.#device.readBack([
      { range: { buffer, byteOffset: start - before, byteLength }, tailBytes: 0 },
    ]);
    const bytes = concatParts(read.objects[0] ?? []);
    return elementBytes === 2
      ? Float32Array.from(new Float16Array(bytes.buffer, before, columns))
      : new Float32Array(bytes.buffer, 0, columns);
  }
}

class HostKvMemory implements KvMemory {
  readonly provider = "wasm";
  readonly description = "wasm";
  readonly #signature: DecoderSignature;
  readonly #tensors: OrtTensorFactory;

  constructor(signature: DecoderSignature, tensors: OrtTensorFactory) {
    this.#signature = signature;
    this.#tensors = tensors;
  }

  allocate(tokens: number): Past {
    const { layers, kvHeads, headDim, ortType, dtype } = this.#signature;
    const dims = [1, kvHeads, tokens, headDim];
    const elements = kvHeads * tokens * headDim;
    const create = (): OrtTensor =>
      this.#tensors.ofHost(
        ortType,
        dtype === "f16" ? new Float16Array(elements) : new Float32Array(elements),
        dims,
      );
    const pairs = Array.from({ length: layers }, () => ({ key: create(), value: create() }));
    return { tokens, layers: pairs };
  }

  kvOf({ layers }: Past): KvTensors {
    return layers.map(({ key, value }) => ({ key: bytesOf(key), value: bytesOf(value) }));
  }

  readRow(tensor: OrtTensor, row: number): Promise<Float32Array> {
    const columns = tensor.dims.at(-1) ?? 0;
    const elements = tensor.data as Float32Array | Float16Array;
    const start = row * columns;
    return Promise.resolve(Float32Array.from(elements.subarray(start, start + columns)));
  }
}

function bytesOf(tensor: OrtTensor): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = tensor.data as Float32Array<ArrayBuffer>;
  return new Uint8Array(buffer, byteOffset, byteLength);
}
