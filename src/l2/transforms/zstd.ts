import { ZstdThreads } from "../../base/zstd.ts";
import { concatParts } from "../../adapter/contract.ts";
import { defineTransform, type Transform, type TransformModule } from "./transform.ts";

const config = {
  level: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 22,
    default: 1,
    help: "Compression level: higher is smaller and slower.",
  },
  threads: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 16,
    default: 2,
    help: "Maximum number of threads for compression, in addition to the main thread.",
  },
} as const;

/**
 * Compresses objects with Zstandard, in its own threads. An object that would not become smaller is
 * stored as it is; its length tells.
 */
export const zstd: TransformModule<typeof config> = defineTransform({
  type: "zstd",
  summary: "Compresses objects with Zstandard.",
  config,
  async create({ level, threads }, refuse) {
    const transform = new ZstdTransform(level, threads);
    try {
      await transform.encode([new Uint8Array(1)]);
      return transform;
    } catch (error) {
      transform[Symbol.dispose]();
      const expected =
        "Zstandard threads, which need permission to read the modules of this package";
      return refuse("threads", expected, error instanceof Error ? error.message : error);
    }
  },
});

class ZstdTransform implements Transform {
  readonly identity = "zstd 1";
  readonly addedBytes = undefined;
  readonly #level: number;
  readonly #threads: ZstdThreads;

  constructor(level: number, threads: number) {
    this.#level = level;
    this.#threads = new ZstdThreads(threads);
  }

  async encode(
    parts: readonly Uint8Array[],
  ): Promise<readonly Uint8Array[]> {
    const bytes = concatParts(parts);
    const { byteLength } = bytes;
    const compressed = await this.#threads.compress(bytes, this.#level);
    return compressed.byteLength < byteLength ? [compressed] : parts;
  }

  async decode(
    bytes: Uint8Array<ArrayBuffer>,
    byteLength: number,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (bytes.byteLength === byteLength) return bytes;
    if (bytes.byteLength > byteLength) return undefined;
    return await this.#threads.decompress(bytes.slice(), byteLength);
  }

  [Symbol.dispose](): void {
    this.#threads[Symbol.dispose]();
  }
}
