import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";

/** What Zstandard can be asked to do. */
export type ZstdRequest =
  | { readonly op: "compress"; readonly bytes: Uint8Array<ArrayBuffer>; readonly level: number }
  | {
    readonly op: "decompress";
    readonly bytes: Uint8Array<ArrayBuffer>;
    /** Most bytes that may come out. */
    readonly maxBytes: number;
  };

/** What came of it: the bytes, or what went wrong. */
export type ZstdReply =
  | { readonly bytes: Uint8Array<ArrayBuffer>; readonly error?: undefined }
  | { readonly error: string };

/** Does it, on the thread that calls. */
export function runZstd(request: ZstdRequest): ZstdReply {
  try {
    return { bytes: run(request) };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

function run(request: ZstdRequest): Uint8Array<ArrayBuffer> {
  const params = { [constants.ZSTD_c_compressionLevel]: "level" in request ? request.level : 0 };
  const result = request.op === "compress"
    ? zstdCompressSync(request.bytes, { params })
    : zstdDecompressSync(request.bytes, { maxOutputLength: request.maxBytes });
  // A small one may lie in memory that others use too.
  const isAlone = result.byteLength === result.buffer.byteLength;
  return isAlone ? new Uint8Array(result.buffer as ArrayBuffer) : new Uint8Array(result);
}
