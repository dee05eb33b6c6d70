import * as nodeFs from "node:fs";

/** Bytes to write past the page cache; all numbers but `from` are multiples of a page. */
export interface WriteRequest {
  /** Tells the answers apart. */
  readonly id: number;
  /** The file. */
  readonly path: string;
  /** What holds the bytes. */
  readonly buffer: SharedArrayBuffer;
  /** How many of them, from the beginning. */
  readonly length: number;
  /** Where they go. */
  readonly position: number;
}

/** What is asked beside writes. */
export interface CloseRequest {
  /** Path of the file; `null` for all of them, and the end. */
  readonly close: string | null;
}

/** What came of it: nothing, or what went wrong. */
export interface WriteReply {
  /** That of the request. */
  readonly id: number;
  /** The message of the error. */
  readonly error?: string | undefined;
  /** The code of the operating system in it. */
  readonly code?: string | undefined;
}

const { O_WRONLY, O_NOFOLLOW = 0 } = nodeFs.constants;
const O_DIRECT: number = (nodeFs.constants as { O_DIRECT?: number }).O_DIRECT ?? 0;
const files = new Map<string, number>();

function write({ path, buffer, length, position }: WriteRequest): void {
  const file = files.get(path) ?? nodeFs.openSync(path, O_WRONLY | O_NOFOLLOW | O_DIRECT);
  files.set(path, file);
  const bytes = new Uint8Array(buffer);
  for (let done = 0; done < length;) {
    const written = nodeFs.writeSync(file, bytes, done, length - done, position + done);
    if (written === 0) throw new Error("The file took no more bytes");
    done += written;
  }
}

function close(path: string): void {
  const file = files.get(path);
  files.delete(path);
  if (file !== undefined) nodeFs.closeSync(file);
}

/** What a worker has of its own; the types of the package are those of a program. */
const worker = globalThis as unknown as {
  onmessage: (event: MessageEvent<WriteRequest | CloseRequest>) => void;
  postMessage(message: unknown): void;
  close(): void;
};

worker.onmessage = ({ data }: MessageEvent<WriteRequest | CloseRequest>) => {
  if ("close" in data) {
    if (data.close !== null) return close(data.close);
    for (const path of [...files.keys()]) close(path);
    worker.postMessage("closed");
    return worker.close();
  }
  const { id } = data;
  try {
    write(data);
    worker.postMessage({ id });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : undefined;
    worker.postMessage({ id, error: error instanceof Error ? error.message : String(error), code });
  }
};
