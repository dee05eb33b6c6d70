const PREFIX_BYTES = 8;
/** Largest body of a frame. */
const MAX_BODY_BYTES = 2 ** 32 - 1;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** A message between processes, without the bytes that follow it. */
export interface FrameHead {
  /** Content of the message: parsed JSON. */
  readonly header: unknown;
  /** Number of bytes that follow. */
  readonly bodyBytes: number;
}

/** The other process has not kept to the protocol. */
export class FrameError extends Error {
  /** Name of the class. */
  override readonly name = "FrameError";
}

/**
 * Writes frames, one after the other: the length of the header and the length of the body as 32-bit
 * little-endian numbers, the header as JSON, the body.
 */
export class FrameWriter {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #last: Promise<unknown> = Promise.resolve();
  #pending = 0;

  constructor(stream: WritableStream<Uint8Array>) {
    this.#writer = stream.getWriter();
    this.#writer.closed.catch(() => {});
  }

  /** Number of frames that are not written yet. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * Writes a frame; resolves when the parts may be changed again.
   *
   * @throws {TypeError | RangeError} At once, if the frame cannot be encoded.
   */
  write(header: unknown, parts: readonly Uint8Array[] = []): Promise<void> {
    const head = encodeHead(header, parts);
    this.#pending++;
    const written = this.#last.then(() => this.#write([head, ...parts]))
      .finally(() => this.#pending--);
    this.#last = written.catch(() => {});
    return written;
  }

  /** Ends the stream after the frames written so far. */
  async close(): Promise<void> {
    await this.#last;
    await this.#writer.close().catch(() => {});
  }

  async #write(parts: readonly Uint8Array[]): Promise<void> {
    for (const part of parts) await this.#writer.write(part);
  }
}

function encodeHead(
  header: unknown,
  parts: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const bodyBytes = parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (bodyBytes > MAX_BODY_BYTES) throw new RangeError(`${bodyBytes} bytes are too many at once`);
  const json = encoder.encode(JSON.stringify(header));
  const head = new Uint8Array(PREFIX_BYTES + json.byteLength);
  const view = new DataView(head.buffer);
  view.setUint32(0, json.byteLength, true);
  view.setUint32(4, bodyBytes, true);
  head.set(json, PREFIX_BYTES);
  return head;
}

/** Reads frames. The body of each must be read, or skipped, before the next frame. */
export class FrameReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #chunk = new Uint8Array(0);
  #isCancelled = false;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
    this.#reader.closed.catch(() => {});
  }

  /**
   * Reads the next header; `undefined` at the end of the stream.
   *
   * @param maxHeaderBytes Called when a frame has arrived: the largest header to accept.
   * @throws {FrameError} If the bytes are no frame.
   */
  async next(maxHeaderBytes = (): number => Infinity): Promise<FrameHead | undefined> {
    const prefix = new Uint8Array(PREFIX_BYTES);
    if (!await this.read(prefix)) return undefined;
    const view = new DataView(prefix.buffer);
    const headerBytes = view.getUint32(0, true);
    if (headerBytes > maxHeaderBytes()) throw new FrameError("The bytes are no message");
    const json = new Uint8Array(headerBytes);
    if (!await this.read(json)) throw new FrameError("The message is incomplete");
    try {
      return { header: JSON.parse(decoder.decode(json)), bodyBytes: view.getUint32(4, true) };
    } catch {
      throw new FrameError("The bytes are no message");
    }
  }

  /** Fills `into`; `false` if the stream ends before. */
  async read(into: Uint8Array): Promise<boolean> {
    for (let done = 0; done < into.byteLength;) {
      if (this.#chunk.byteLength === 0) {
        const { value } = await this.#reader.read();
        if (value === undefined || this.#isCancelled) return false;
        this.#chunk = value as Uint8Array<ArrayBuffer>;
      }
      const count = Math.min(into.byteLength - done, this.#chunk.byteLength);
      into.set(this.#chunk.subarray(0, count), done);
      this.#chunk = this.#chunk.subarray(count);
      done += count;
    }
    return true;
  }

  /** Stops reading: nothing is written into an array any more. */
  async cancel(): Promise<void> {
    this.#isCancelled = true;
    await this.#reader.cancel().catch(() => {});
  }
}
