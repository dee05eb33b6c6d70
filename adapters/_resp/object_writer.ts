import { Buffer } from "node:buffer";
import { readParts, sliceParts } from "../../src/base/byte_parts.ts";
import { type AdapterObject, type RandomSource, systemRandom } from "../../src/adapter/contract.ts";
import { writeSplit } from "../_remote/split_values.ts";
import type { Connection } from "./connection.ts";
import { embeddedKeyOf, encodeManifest } from "./object_head.ts";
import type { RespObjectNames } from "./object_names.ts";
import { ReplyError } from "./resp_error.ts";
import { KEEP_CHUNKS, PUBLISH, RETIRE_CHUNKS } from "./scripts.ts";

/** Unpublished chunks expire after this time, in milliseconds. */
const UNPUBLISHED_MS = 120_000;
/**
 * Max bytes of an object in a single value: up to this size, a copy costs less than more requests.
 */
const MAX_WHOLE_BYTES = 256 * 2 ** 10;
/** Max inline bytes of an object with chunks; the publishing script copies them. */
const MAX_REST_BYTES = 4096;
/** How much longer than the manifest the chunks live, in milliseconds. */
const CHUNK_GRACE_MS = 60_000;

/** Options of a {@linkcode RespObjectWriter}. */
export interface RespObjectWriterOptions {
  readonly names: RespObjectNames;
  /** Bytes of a chunk; a larger object is split. */
  readonly chunkBytes: number;
  /** Lifetime of objects in milliseconds; 0: unlimited. */
  readonly ttlMs: number;
  /** Source of generation ids. */
  readonly random?: RandomSource;
}

/**
 * Writes objects. A small object is one value. Of a larger one, the chunks are written first, with
 * an expiry and unknown to readers; then a script publishes the manifest.
 */
export class RespObjectWriter {
  readonly #options: RespObjectWriterOptions;

  constructor(options: RespObjectWriterOptions) {
    this.#options = options;
  }

  /**
   * Writes one object; nothing is published after `signal` aborts.
   *
   * @returns Whether the object was published.
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If the server does not answer.
   */
  async write(
    connection: Connection,
    { key, parts, byteLength }: AdapterObject,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { names, chunkBytes, random = systemRandom } = this.#options;
    const manifestKey = names.manifestKeyOf(key);
    const chunkCount = countChunks(byteLength, chunkBytes);
    const generation = random.bytes(16).toHex();
    const start = Math.min(byteLength, chunkCount * chunkBytes);
    const embedded = embeddedKeyOf(names.nameIn(manifestKey) ?? "", key);
    const value = encodeManifest({ chunkCount, chunkBytes, byteLength, generation }, embedded, {
      byteLength: byteLength - start,
      copyTo: (target) => readParts(parts, start, target),
    });
    if (chunkCount === 0) return await this.#writeWhole(connection, manifestKey, value, signal);
    const chunkPrefix = names.chunkPrefixOf(manifestKey, generation);
    const { ttlMs } = this.#options;
    const chunkTtlMs = ttlMs === 0 ? 0 : ttlMs + CHUNK_GRACE_MS;
    const times = [String(ttlMs), String(chunkTtlMs)];
    const publish = [
      "EVAL",
      PUBLISH,
      "1",
      manifestKey,
      value,
      ...times,
      chunkPrefix,
      String(chunkCount),
    ];
    const split = { byteLength: start, partBytes: chunkBytes, count: chunkCount };
    return await writeSplit(split, Infinity, signal, {
      writePart: ({ index, start, end }, stop) => {
        const name = `${chunkPrefix}${index}`;
        const command = ["SET", name, chunkOf(parts, start, end), "PX", String(UNPUBLISHED_MS)];
        return connection.send(chunkPrefix, command, stop);
      },
      publish: async () => await connection.send(manifestKey, publish, signal) === 1,
      // On a full server, unpublished chunks must not take space until they expire.
      removeParts: () => this.#removeChunks(connection, chunkPrefix, chunkCount),
      isRefusal: (error) => error instanceof ReplyError,
    });
  }

  async #writeWhole(
    connection: Connection,
    manifestKey: string,
    value: Buffer,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { ttlMs } = this.#options;
    const evaluate = (script: string) => ["EVAL", script, "1", manifestKey, String(CHUNK_GRACE_MS)];
    const expiry = ttlMs === 0 ? [] : ["PX", String(ttlMs)];
    const [, set] = await Promise.allSettled([
      connection.send(manifestKey, evaluate(RETIRE_CHUNKS), signal),
      connection.send(manifestKey, ["SET", manifestKey, value, ...expiry], signal),
    ]);
    if (set.status === "rejected") {
      if (set.reason instanceof ReplyError) {
        // The object that should have been replaced stays.
        await connection.send(manifestKey, evaluate(KEEP_CHUNKS)).catch(() => {});
      }
      throw set.reason;
    }
    return true;
  }

  async #removeChunks(connection: Connection, chunkPrefix: string, count: number): Promise<void> {
    await Promise.allSettled(
      Array.from(
        { length: count },
        (_, i) => connection.send(chunkPrefix, ["DEL", `${chunkPrefix}${i}`]),
      ),
    );
  }
}

/** Number of chunks; a small remainder is stored inline with the manifest. */
function countChunks(byteLength: number, chunkBytes: number): number {
  if (byteLength <= Math.min(chunkBytes, MAX_WHOLE_BYTES)) return 0;
  const full = Math.floor(byteLength / chunkBytes);
  return byteLength - full * chunkBytes > MAX_REST_BYTES ? full + 1 : full;
}

/** Bytes of an object as one chunk; a copy only if they span several parts. */
function chunkOf(parts: AdapterObject["parts"], start: number, end: number): Buffer {
  const { buffer, byteOffset, byteLength } = sliceParts(parts, start, end);
  return Buffer.from(buffer, byteOffset, byteLength);
}
