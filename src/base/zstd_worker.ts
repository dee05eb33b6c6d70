import { runZstd, type ZstdRequest } from "./zstd_work.ts";

/** The worker's global scope. The package is type-checked with the types of a main program. */
const worker = globalThis as unknown as {
  onmessage: (event: MessageEvent<{ id: number; request: ZstdRequest }>) => void;
  postMessage(message: unknown, transfer: Transferable[]): void;
};

worker.onmessage = ({ data: { id, request } }) => {
  const reply = runZstd(request);
  worker.postMessage({ id, ...reply }, reply.error === undefined ? [reply.bytes.buffer] : []);
};
