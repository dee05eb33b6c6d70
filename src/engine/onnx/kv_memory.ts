import { concatParts } from "../../adapter/contract.ts";
import { createGpuBuffer } from "../../memory/gpu_buffer.ts";
import { catchGpuErrors } from "../../memory/gpu_errors.ts";
import type { DeviceBuffer, MemoryDevice } from "../../memory/memory_device.ts";
import { WebGpuDevice } from "../../memory/webgpu_device.ts";
import type { KvBlocks } from "../kv_binding.ts";
import type { PrefixHit } from "../prefix_hit.ts";
import { type DecoderSignature, type KvNames, UnsupportedModelError } from "./decoder_signature.ts";
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

/** The past with a tensor for each K and V of a model. */
export function pastOf(
  { kv }: DecoderSignature,
  tokens: number,
  tensorOf: (names: KvNames) => OrtTensor,
): Past {
  const layers = kv.map(({ key, value }) => ({ key: tensorOf(key), value: tensorOf(value) }));
  return { tokens, layers };
}

/** The memory of a session's K and V, shared with the cache. */
export abstract class KvMemory {
  /** Execution provider that computes in this memory. */
  abstract readonly provider: "webgpu" | "wasm";
  /** Description of the device, on which the bits of KV depend. */
  abstract readonly description: string;
  /** Inputs and outputs of the model. */
  protected readonly signature: DecoderSignature;
  /** Creates tensors. */
  protected readonly tensors: OrtTensorFactory;

  /** Memory of the K and V of a model. */
  constructor(signature: DecoderSignature, tensors: OrtTensorFactory) {
    this.signature = signature;
    this.tensors = tensors;
  }

  /** Reads row `row` of a tensor `[1, rows, columns]`. */
  abstract readRow(tensor: OrtTensor, row: number): Promise<Float32Array>;

  /** Allocates a tensor of K or V. */
  protected abstract create(dims: readonly number[]): OrtTensor;

  /** The memory of a tensor. */
  protected abstract bufferOf(tensor: OrtTensor): DeviceBuffer;

  /** Allocates K and V of a hit, to be filled by copies. */
  allocate(tokens: number): Past {
    const { kvHeads, headDim } = this.signature;
    return pastOf(this.signature, tokens, () => this.create([1, kvHeads, tokens, headDim]));
  }

  /** The K and V of a past, in the form the cache takes. */
  kvOf({ tokens, layers }: Past): KvBlocks {
    const buffers = layers.map(({ key, value }) => {
      return { key: this.bufferOf(key), value: this.bufferOf(value) };
    });
    return { layers: buffers, blockTokens: tokens };
  }
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
    isCopied = await hit.scatterTo(memory.kvOf(past));
  } finally {
    if (!isCopied) disposePast(past);
  }
  return isCopied ? past : undefined;
}

class GpuKvMemory extends KvMemory {
  readonly provider = "webgpu";
  readonly description: string;
  readonly #device: WebGpuDevice;

  constructor(device: WebGpuDevice, signature: DecoderSignature, tensors: OrtTensorFactory) {
    super(signature, tensors);
    if (signature.dtype === "f16" && !device.gpuDevice.features.has("shader-f16")) {
      throw new UnsupportedModelError(
        "A model with K and V of float16 needs a GPUDevice with the feature shader-f16: request " +
          "it, let the cache request its device, or use the model in float32",
      );
    }
    this.#device = device;
    this.description = device.description;
  }

  override allocate(tokens: number): Past {
    // A device that lacks the memory rejects the copies into it.
    return catchGpuErrors(this.#device.gpuDevice, () => super.allocate(tokens)).result;
  }

  protected create(dims: readonly number[]): OrtTensor {
    const { ortType, dtype } = this.signature;
    const size = dims.reduce((bytes, length) => bytes * length, dtype === "f16" ? 2 : 4);
    // Shaders read vectors of 16 bytes.
    const rounded = Math.ceil(size / 16) * 16;
    const buffer = createGpuBuffer(this.#device.gpuDevice, "kvtier past", rounded);
    return this.tensors.ofBuffer(ortType, buffer, dims);
  }

  protected bufferOf(tensor: OrtTensor): GPUBuffer {
    return tensor.gpuBuffer as GPUBuffer;
  }

  async readRow(tensor: OrtTensor, row: number): Promise<Float32Array> {
    const columns = tensor.dims.at(-1) ?? 0;
    const elementBytes = tensor.type === "float16" ? 2 : 4;
    const start = row * columns * elementBytes;
    // Copies between buffers are multiples of 4 bytes.
    const before = start % 4;
    const byteLength = Math.ceil((before + columns * elementBytes) / 4) * 4;
    const buffer = this.bufferOf(tensor);
    using read = await this.#device.readBack([
      { range: { buffer, byteOffset: start - before, byteLength }, tailBytes: 0 },
    ]);
    const bytes = concatParts(read.objects[0] ?? []);
    return elementBytes === 2
      ? Float32Array.from(new Float16Array(bytes.buffer, before, columns))
      : new Float32Array(bytes.buffer, 0, columns);
  }
}

class HostKvMemory extends KvMemory {
  readonly provider = "wasm";
  readonly description = "wasm";

  protected create(dims: readonly number[]): OrtTensor {
    return this.tensors.zeros(this.signature.ortType, dims);
  }

  protected bufferOf(tensor: OrtTensor): Uint8Array<ArrayBuffer> {
    const { buffer, byteOffset, byteLength } = tensor.data as Float32Array<ArrayBuffer>;
    return new Uint8Array(buffer, byteOffset, byteLength);
  }

  readRow(tensor: OrtTensor, row: number): Promise<Float32Array> {
    const columns = tensor.dims.at(-1) ?? 0;
    const elements = tensor.data as Float32Array | Float16Array;
    const start = row * columns;
    return Promise.resolve(Float32Array.from(elements.subarray(start, start + columns)));
  }
}
