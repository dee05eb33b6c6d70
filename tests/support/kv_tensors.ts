import type { KvLayout } from "../../src/keys/kv_layout.ts";
import type { DeviceBuffer, MemoryDevice } from "../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../src/memory/webgpu_device.ts";
import { readRange } from "./devices.ts";
import { testBytes, testKey } from "./objects.ts";

/** An engine's K and V on a device, until disposed. */
export class EngineTensors implements Disposable {
  /** The tensors, as an engine passes them. */
  readonly kv: readonly { readonly key: DeviceBuffer; readonly value: DeviceBuffer }[];
  readonly #device: MemoryDevice;
  readonly #bytes: number;

  /** Creates tensors of zeros for `tokens` tokens. */
  constructor(device: MemoryDevice, layout: KvLayout, tokens: number) {
    this.#device = device;
    this.#bytes = tokens * layout.tokenBytes;
    this.kv = Array.from({ length: layout.layers }, () => ({
      key: createBuffer(device, this.#bytes),
      value: createBuffer(device, this.#bytes),
    }));
  }

  /** Fills all tensors with bytes that depend on position and seed. */
  fill(seed: number): this {
    for (const [i, bytes] of this.expected(seed).entries()) {
      const range = { buffer: this.#buffers[i] as DeviceBuffer, byteOffset: 0 };
      this.#device.upload({ ...range, byteLength: bytes.byteLength }, [bytes]);
    }
    return this;
  }

  /** The bytes that {@linkcode fill} writes, per tensor: for each layer K, then V. */
  expected(seed: number): Uint8Array<ArrayBuffer>[] {
    return this.#buffers.map((_, i) => testBytes(testKey(seed * 1000 + i), this.#bytes));
  }

  /** Reads the tensors. */
  async read(): Promise<Uint8Array[]> {
    const contents: Uint8Array[] = [];
    for (const buffer of this.#buffers) {
      const range = { buffer, byteOffset: 0, byteLength: this.#bytes };
      contents.push(await readRange(this.#device, range));
    }
    return contents;
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#buffers) {
      if (!(buffer instanceof Uint8Array)) buffer.destroy();
    }
  }

  get #buffers(): DeviceBuffer[] {
    return this.kv.flatMap(({ key, value }) => [key, value]);
  }
}

/** Creates a buffer like an engine. */
export function createBuffer(device: MemoryDevice, size: number): DeviceBuffer {
  if (!(device instanceof WebGpuDevice)) return new Uint8Array(size);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  return device.gpuDevice.createBuffer({ size, usage });
}
