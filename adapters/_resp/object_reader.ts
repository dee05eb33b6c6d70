import { Buffer } from "node:buffer";
import { type AdapterObject, fitsRoom } from "../../src/l2/adapter.ts";
import { ObjectParts } from "../_shared/object_parts.ts";
import type { Connection } from "./connection.ts";
import { decodeHead, HEAD_BYTES, MAX_CHUNKS, type ObjectHead } from "./object_head.ts";
import type { ObjectNames } from "./object_names.ts";
import { ReplyError } from "./resp_error.ts";
import { REMOVE } from "./scripts.ts";

/** What reading an object came to; `damaged` where something else lies under its name. */
export type ReadOutcome = "filled" | "absent" | "different" | "damaged";

/** Reads objects into the parts that wait for them. */
export class ObjectReader {
  readonly #names: ObjectNames;

  /** Reads objects that are called by `names`. */
  constructor(names: ObjectNames) {
    this.#names = names;
  }

  /**
   * Reads one object; after `signal` aborts nothing is written into its parts any more. One with a
   * chunk that is gone is removed.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If it does not answer.
   */
  async read(
    connection: Connection,
    object: AdapterObject,
    allowShorter: boolean,
    signal: AbortSignal,
  ): Promise<ReadOutcome> {
    const head = this.#names.headOf(object.key);
    const parts = new ObjectParts(object.parts);
    let incomplete: string | undefined;
    for (;;) {
      const value = await get(connection, head, signal);
      if (value === undefined) return "absent";
      if (value === "no string") return "damaged";
      const fields = decodeHead(value);
      if (fields === undefined || !isWhole(fields, value)) return "damaged";
      if (!fitsRoom(fields.byteLength, object.byteLength, allowShorter)) return "different";
      if (fields.generation === incomplete) {
        await connection.send(head, ["EVAL", REMOVE, "1", head, incomplete], signal);
        return "absent";
      }
      if (await this.#readChunks(connection, head, fields, parts, signal)) {
        if (signal.aborted) return "absent";
        const start = fields.chunkCount * fields.chunkBytes;
        parts.fill(value.subarray(HEAD_BYTES + fields.keyLength), start);
        return "filled";
      }
      if (signal.aborted) return "absent";
      // Another store may have replaced it meanwhile: that shows when its head is read again.
      incomplete = fields.generation;
    }
  }

  /** Fills what is in chunks; resolves to whether all of them were there. */
  async #readChunks(
    connection: Connection,
    head: string,
    { chunkCount, chunkBytes, byteLength, generation }: ObjectHead,
    parts: ObjectParts,
    signal: AbortSignal,
  ): Promise<boolean> {
    const stem = this.#names.stemOf(head, generation);
    const reads = Array.from({ length: chunkCount }, async (_, i) => {
      const chunk = await get(connection, `${stem}${i}`, signal);
      const end = Math.min(chunkBytes, byteLength - i * chunkBytes);
      if (!Buffer.isBuffer(chunk) || chunk.byteLength !== end) return false;
      if (!signal.aborted) parts.fill(chunk, i * chunkBytes);
      return true;
    });
    // One that fails must not let go of the parts while the others are still on their way there.
    const outcomes = await Promise.allSettled(reads);
    const failure = outcomes.find((outcome) => outcome.status === "rejected");
    if (failure !== undefined) throw failure.reason;
    return outcomes.every((outcome) => outcome.status === "fulfilled" && outcome.value);
  }
}

/** The value under a name; `undefined` if there is none. Others may keep another type there. */
async function get(
  connection: Connection,
  name: string,
  signal: AbortSignal,
): Promise<Buffer | "no string" | undefined> {
  try {
    const value = await connection.send(name, ["GET", name], signal);
    if (value === null) return undefined;
    return Buffer.isBuffer(value) ? value : "no string";
  } catch (error) {
    if (error instanceof ReplyError && error.code === "WRONGTYPE") return "no string";
    throw error;
  }
}

/** Whether a value has all bytes that its head names. */
function isWhole(head: ObjectHead, value: Buffer): boolean {
  const { byteLength, chunkCount, chunkBytes, keyLength } = head;
  const rest = byteLength - chunkCount * chunkBytes;
  if (chunkCount > MAX_CHUNKS || rest <= -chunkBytes && chunkCount > 0) return false;
  return value.byteLength === HEAD_BYTES + keyLength + Math.max(0, rest);
}
