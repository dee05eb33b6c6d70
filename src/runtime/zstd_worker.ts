import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";

/** What the worker can be asked to do. */
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

/** What a worker has of its own; the types of the package are those of a program. */
const worker = globalThis as unknown as {
  onmessage: (event: MessageEvent<{ id: number; request: ZstdRequest }>) => void;
  postMessage(message: unknown, transfer: Transferable[]): void;
};

function run(request: ZstdRequest): Uint8Array<ArrayBuffer> {
  const params = { [constants.ZSTD_c_compressionLevel]: "level" in request ? request.level : 0 };
  const result = request.op === "compress"
    ? zstdCompressSync(request.bytes, { params })
    : zstdDecompressSync(request.bytes, { maxOutputLength: request.maxBytes });
  // A small one may lie in memory that others use too.
  const isAlone = result.byteLength === result.buffer.byteLength;
  return isAlone ? new Uint8Array(result.buffer as ArrayBuffer) : new Uint8Array(result);
}

worker.onmessage = ({ data: { id, request } }) => {
  let reply: ZstdReply;
  try {
    reply = { bytes: run(request) };
  } catch (error) {
    reply = { error: error instanceof Error ? error.message : String(error) };
  }
  worker.postMessage({ id, ...reply }, reply.error === undefined ? [reply.bytes.buffer] : []);
};
