import * as nodeFs from "node:fs";

/** What the worker can be asked to do with a file. */
export type WriteRequest =
  | { readonly op: "create"; readonly path: string; readonly mode: number }
  | { readonly op: "open"; readonly path: string }
  | {
    readonly op: "write";
    readonly file: number;
    readonly buffer: SharedArrayBuffer;
    readonly from: number;
    readonly length: number;
    readonly position: number;
  }
  | { readonly op: "truncate"; readonly file: number; readonly length: number }
  | { readonly op: "sync"; readonly file: number }
  | { readonly op: "close"; readonly file: number };

/** What came of it: the number of the file or of bytes written, or what went wrong. */
export type WriteReply =
  | { readonly value: number; readonly error?: undefined }
  | { readonly error: string; readonly code: string | undefined };

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0 } = nodeFs.constants;
// Not from `direct_access.ts`: a worker loads no more than it needs.
const O_DIRECT: number = (nodeFs.constants as { O_DIRECT?: number }).O_DIRECT ?? 0;

function run(request: WriteRequest): number {
  switch (request.op) {
    case "create":
      return nodeFs.openSync(request.path, O_WRONLY | O_CREAT | O_EXCL | O_DIRECT, request.mode);
    case "open":
      return nodeFs.openSync(request.path, O_WRONLY | O_NOFOLLOW | O_DIRECT);
    case "write": {
      const { file, buffer, from, length, position } = request;
      return nodeFs.writeSync(file, new Uint8Array(buffer), from, length - from, position);
    }
    case "truncate":
      nodeFs.ftruncateSync(request.file, request.length);
      return 0;
    case "sync":
      nodeFs.fdatasyncSync(request.file);
      return 0;
    case "close":
      nodeFs.closeSync(request.file);
      return 0;
  }
}

/** What a worker has of its own; the types of the package are those of a program. */
const worker = globalThis as unknown as {
  onmessage: (event: MessageEvent<{ id: number; request: WriteRequest }>) => void;
  postMessage(message: unknown): void;
};

worker.onmessage = (
  { data: { id, request } }: MessageEvent<{ id: number; request: WriteRequest }>,
) => {
  let reply: WriteReply;
  try {
    reply = { value: run(request) };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : undefined;
    reply = { error: error instanceof Error ? error.message : String(error), code };
  }
  worker.postMessage({ id, ...reply });
};
