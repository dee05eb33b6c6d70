import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";

/** A request to compress or decompress. */
export type ZstdRequest =
  | { readonly op: "compress"; readonly bytes: Uint8Array<ArrayBuffer>; readonly level: number }
  | {
    readonly op: "decompress";
    readonly bytes: Uint8Array<ArrayBuffer>;
    /** Maximum size of the result, in bytes. */
    readonly maxBytes: number;
  };

/** The resulting bytes, or an error message. */
export type ZstdReply =
  | { readonly bytes: Uint8Array<ArrayBuffer>; readonly error?: undefined }
  | { readonly error: string };

/** Runs a request on the calling thread. */
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
  // Node returns small results as views of a shared pool, which must not be transferred.
  const isAlone = result.byteLength === result.buffer.byteLength;
  return isAlone ? new Uint8Array(result.buffer as ArrayBuffer) : new Uint8Array(result);
}
