import * as nodeFs from "node:fs";
import type { WriteReply, WriteRequest } from "./direct_writer.ts";
import { ownFile } from "../../src/runtime/own_file.ts";
import { errnoOf } from "./errno.ts";

/** What addresses, lengths and offsets must be multiples of. */
export const DIRECT_ALIGNMENT = 4096;
/** Bytes of one aligned buffer; more is moved in several steps. */
export const DIRECT_BUFFER_BYTES: number = 4 * 2 ** 20;
/** The flag that passes the page cache by; 0 where the operating system has none. */
export const O_DIRECT: number = (nodeFs.constants as { O_DIRECT?: number }).O_DIRECT ?? 0;

/** The program of the worker; a bundle has none. */
const WRITER = ownFile(import.meta.url, "adapters/_shared/direct_access.ts", "./direct_writer.ts");
const WASM_PAGE_BYTES = 65_536;

/** Memory that starts at a page, and that a worker can read. */
export type AlignedBuffer = Uint8Array<SharedArrayBuffer>;

/** Whether an error says that this file system, or this file, cannot be used past the cache. */
export function isDirectRefused(error: unknown): boolean {
  return ["EINVAL", "EOPNOTSUPP", "ENOTSUP"].includes(errnoOf(error) ?? "");
}

/** `length`, or the next multiple of {@linkcode DIRECT_ALIGNMENT}. */
export function alignUp(length: number): number {
  return Math.ceil(length / DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT;
}

/** Aligned buffers, as many as are in use at a time. */
export class AlignedBuffers {
  readonly #idle: AlignedBuffer[] = [];

  /** Lends one of {@linkcode DIRECT_BUFFER_BYTES}. */
  take(): AlignedBuffer {
    const idle = this.#idle.pop();
    if (idle !== undefined) return idle;
    const pages = DIRECT_BUFFER_BYTES / WASM_PAGE_BYTES;
    // The memory of WebAssembly starts at a page, which no other buffer of JavaScript promises.
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    return new Uint8Array(memory.buffer as unknown as SharedArrayBuffer);
  }

  /** Takes one back. */
  giveBack(buffer: AlignedBuffer): void {
    this.#idle.push(buffer);
  }
}

/** Writes files past the page cache, in a worker: Deno knows no asynchronous write to them. */
export class DirectWriter {
  #worker: Worker | undefined;
  #failure: Error | undefined = WRITER === undefined
    ? refused("a bundle has no writer")
    : undefined;
  #asked = 0;
  readonly #answers = new Map<number, PromiseWithResolvers<number>>();

  /** Asks the worker for something; it runs from the first request on. */
  ask(request: WriteRequest): Promise<number> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const answer = Promise.withResolvers<number>();
    const id = this.#asked++;
    this.#answers.set(id, answer);
    this.#start(WRITER as URL).postMessage({ id, request });
    return answer.promise;
  }

  /** Writes the first `length` bytes of a buffer; both numbers are aligned. */
  async write(
    file: number,
    { buffer }: AlignedBuffer,
    length: number,
    position: number,
  ): Promise<void> {
    for (let from = 0; from < length;) {
      const place = { from, length, position: position + from };
      const written = await this.ask({ op: "write", file, buffer, ...place });
      // A file system that takes nothing and says nothing would be asked for ever.
      if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
      from += written;
    }
  }

  /** Closes a file, in its turn. */
  forget(file: number): void {
    this.ask({ op: "close", file }).catch(() => {});
  }

  /** Ends the worker, when it has done what it was asked for. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#answers.values()].map(({ promise }) => promise));
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  #start(url: URL): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const worker = this.#worker = new Worker(url, { type: "module", name: "kvtier direct writer" });
    worker.onmessage = ({ data: { id, ...reply } }: MessageEvent<{ id: number } & WriteReply>) => {
      const answer = this.#answers.get(id);
      this.#answers.delete(id);
      if (reply.error === undefined) answer?.resolve(reply.value);
      else answer?.reject(Object.assign(new Error(reply.error), { code: reply.code }));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      // Without its worker nothing can be written this way any more, whatever the file system says.
      this.#failure = refused(event.message);
      for (const answer of this.#answers.values()) answer.reject(this.#failure);
      this.#answers.clear();
    };
    return worker;
  }
}

function refused(message: string): Error {
  return Object.assign(new Error(message), { code: "ENOTSUP" });
}
