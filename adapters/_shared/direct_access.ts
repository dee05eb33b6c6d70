import { DIRECT_BUFFER_BYTES, O_DIRECT } from "../../src/base/io/direct_io.ts";
import { errnoOf, messageOf } from "./errno.ts";

export {
  alignUp,
  DIRECT_ALIGNMENT,
  DIRECT_BUFFER_BYTES,
  O_DIRECT,
} from "../../src/base/io/direct_io.ts";

const WASM_PAGE_BYTES = 65_536;

/** Page-aligned memory that can be shared with a worker. */
export type AlignedBuffer = Uint8Array<SharedArrayBuffer>;

/** Whether an error means that this file system or file does not support direct I/O. */
export function isDirectRefused(error: unknown): boolean {
  return ["EINVAL", "EOPNOTSUPP", "ENOTSUP"].includes(errnoOf(error) ?? "");
}

/**
 * Why direct I/O does not work, judged by test bytes; `undefined` if it does.
 *
 * @param writeAndRead Writes the bytes with direct I/O; resolves to the bytes it reads back.
 */
export async function refusalOf(
  byteLength: number,
  writeAndRead: (bytes: Uint8Array<ArrayBuffer>) => Promise<Uint8Array | undefined>,
): Promise<string | undefined> {
  if (O_DIRECT === 0) return "this operating system has no O_DIRECT";
  const bytes = new Uint8Array(byteLength).map((_, i) => i % 251);
  try {
    const read = await writeAndRead(bytes);
    const isSame = read?.byteLength === byteLength && bytes.every((byte, i) => read[i] === byte);
    return isSame ? undefined : "the bytes read differ from those written";
  } catch (error) {
    return messageOf(error);
  }
}

/** Pool of aligned buffers; grows to the largest number in use at once. */
export class AlignedBuffers {
  readonly #idle: AlignedBuffer[] = [];

  /** Takes a buffer of {@linkcode DIRECT_BUFFER_BYTES} from the pool. */
  take(): AlignedBuffer {
    const idle = this.#idle.pop();
    if (idle !== undefined) return idle;
    const pages = DIRECT_BUFFER_BYTES / WASM_PAGE_BYTES;
    // WebAssembly memory is page-aligned; no other JavaScript buffer guarantees that.
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    return new Uint8Array(memory.buffer as unknown as SharedArrayBuffer);
  }

  /** Returns a buffer to the pool. */
  giveBack(buffer: AlignedBuffer): void {
    this.#idle.push(buffer);
  }
}
