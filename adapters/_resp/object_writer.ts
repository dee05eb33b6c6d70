import type { Buffer } from "node:buffer";
import { type AdapterObject, type RandomSource, systemRandom } from "../../src/l2/adapter.ts";
import { ObjectParts } from "../_shared/object_parts.ts";
import type { Connection } from "./connection.ts";
import { carriedKeyOf, encodeHead } from "./object_head.ts";
import type { ObjectNames } from "./object_names.ts";
import { ReplyError } from "./resp_error.ts";
import { KEEP_CHUNKS, PUBLISH, RETIRE_CHUNKS } from "./scripts.ts";

/** Chunks that nobody has published after so long expire, in milliseconds. */
const UNPUBLISHED_MS = 120_000;
/** Most bytes of an object that is one value: there a copy costs less than another request. */
const MAX_WHOLE_BYTES = 256 * 2 ** 10;
/** Most bytes behind the head of an object with chunks, which the script copies. */
const MAX_REST_BYTES = 4096;
/** How much longer than its head an object's chunks live, in milliseconds. */
const CHUNK_GRACE_MS = 60_000;

/** How an {@linkcode ObjectWriter} is set up. */
export interface ObjectWriterOptions {
  /** How objects are called. */
  readonly names: ObjectNames;
  /** Bytes of a chunk; an object with more of them is split. */
  readonly chunkBytes: number;
  /** After so many milliseconds objects expire; 0: never. */
  readonly ttlMs: number;
  /** Where generations come from. */
  readonly random?: RandomSource;
}

/**
 * Writes objects: a small one as one value; of a larger one the chunks first, which nobody knows
 * yet and which expire, then at once the head that names them.
 */
export class ObjectWriter {
  readonly #options: ObjectWriterOptions;

  /** Writes nothing yet. */
  constructor(options: ObjectWriterOptions) {
    this.#options = options;
  }

  /**
   * Writes one object; after `signal` aborts nothing is published any more.
   *
   * @returns Whether it can be loaded.
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If it does not answer.
   */
  async write(
    connection: Connection,
    { key, parts, byteLength }: AdapterObject,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { names, chunkBytes, random = systemRandom } = this.#options;
    const bytes = new ObjectParts(parts);
    const head = names.headOf(key);
    const chunkCount = countChunks(byteLength, chunkBytes);
    const generation = random.bytes(16).toHex();
    const start = Math.min(byteLength, chunkCount * chunkBytes);
    const carried = carriedKeyOf(names.nameIn(head) ?? "", key);
    const value = encodeHead({ chunkCount, chunkBytes, byteLength, generation }, carried, {
      byteLength: byteLength - start,
      copyTo: (target) => bytes.copyTo(target, start),
    });
    if (chunkCount === 0) return await this.#writeWhole(connection, head, value, signal);
    const stem = names.stemOf(head, generation);
    const { ttlMs } = this.#options;
    const chunkTtlMs = ttlMs === 0 ? 0 : ttlMs + CHUNK_GRACE_MS;
    const times = [String(ttlMs), String(chunkTtlMs)];
    const publish = ["EVAL", PUBLISH, "1", head, value, ...times, stem, String(chunkCount)];
    const chunks = Array.from(
      { length: chunkCount },
      (_, i) => bytes.slice(i * chunkBytes, Math.min(byteLength, (i + 1) * chunkBytes)),
    );
    // Where there is no room, what is of no use must not stand in the way until it expires.
    const removeChunks = (): Promise<void> => this.#removeChunks(connection, stem, chunkCount);
    try {
      if (!await this.#writeChunks(connection, stem, chunks, signal)) return false;
      const isPublished = await connection.send(head, publish, signal) === 1;
      if (!isPublished) await removeChunks();
      return isPublished;
    } catch (error) {
      if (error instanceof ReplyError) await removeChunks();
      throw error;
    }
  }

  async #writeWhole(
    connection: Connection,
    head: string,
    value: Buffer,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { ttlMs } = this.#options;
    const evaluate = (script: string) => ["EVAL", script, "1", head, String(CHUNK_GRACE_MS)];
    const expiry = ttlMs === 0 ? [] : ["PX", String(ttlMs)];
    const [, set] = await Promise.allSettled([
      connection.send(head, evaluate(RETIRE_CHUNKS), signal),
      connection.send(head, ["SET", head, value, ...expiry], signal),
    ]);
    if (set.status === "rejected") {
      if (set.reason instanceof ReplyError) {
        // The object that was to be replaced stays.
        await connection.send(head, evaluate(KEEP_CHUNKS)).catch(() => {});
      }
      throw set.reason;
    }
    return true;
  }

  /** Writes chunks; resolves to whether they are still wanted, after all of them have ended. */
  async #writeChunks(
    connection: Connection,
    stem: string,
    chunks: readonly Buffer[],
    signal: AbortSignal,
  ): Promise<boolean> {
    const expiry = ["PX", String(UNPUBLISHED_MS)];
    const writes = chunks.map((chunk, i) =>
      connection.send(stem, ["SET", `${stem}${i}`, chunk, ...expiry], signal)
    );
    const outcomes = await Promise.allSettled(writes);
    const failure = outcomes.find((outcome) => outcome.status === "rejected");
    if (failure !== undefined) throw failure.reason;
    return !signal.aborted;
  }

  async #removeChunks(connection: Connection, stem: string, count: number): Promise<void> {
    await Promise.allSettled(
      Array.from({ length: count }, (_, i) => connection.send(stem, ["DEL", `${stem}${i}`])),
    );
  }
}

/** Values of an object that stand by themselves: what is left over goes through a script. */
function countChunks(byteLength: number, chunkBytes: number): number {
  if (byteLength <= Math.min(chunkBytes, MAX_WHOLE_BYTES)) return 0;
  const full = Math.floor(byteLength / chunkBytes);
  return byteLength - full * chunkBytes > MAX_REST_BYTES ? full + 1 : full;
}
