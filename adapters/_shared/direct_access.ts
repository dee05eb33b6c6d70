import * as nodeFs from "node:fs";
import { errnoOf } from "./errno.ts";

/** What addresses, lengths and offsets must be multiples of. */
export const DIRECT_ALIGNMENT = 4096;
/** Bytes of one aligned buffer; more is moved in several steps. */
export const DIRECT_BUFFER_BYTES: number = 4 * 2 ** 20;
/** The flag that passes the page cache by; 0 where the operating system has none. */
export const O_DIRECT: number = (nodeFs.constants as { O_DIRECT?: number }).O_DIRECT ?? 0;

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
