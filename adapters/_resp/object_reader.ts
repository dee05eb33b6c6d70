import { Buffer } from "node:buffer";
import { writeParts } from "../../src/base/byte_parts.ts";
import { type AdapterObject, fitsRoom } from "../../src/adapter/contract.ts";
import type { ReadOutcome } from "../_remote/remote_store.ts";
import { readSplit } from "../_remote/split_values.ts";
import type { Connection } from "./connection.ts";
import { decodeManifest, MANIFEST_BYTES, MAX_CHUNKS, type ObjectManifest } from "./object_head.ts";
import type { RespObjectNames } from "./object_names.ts";
import { ReplyError } from "./resp_error.ts";
import { REMOVE } from "./scripts.ts";

/** Loads objects into their parts. */
export class RespObjectReader {
  readonly #names: RespObjectNames;

  constructor(names: RespObjectNames) {
    this.#names = names;
  }

  /**
   * Loads one object. After `signal` aborts, its parts are not written any more. An object with a
   * missing chunk is removed.
   *
   * @throws {ReplyError} If the server refuses.
   * @throws {ConnectionError} If the server does not answer.
   */
  async read(
    connection: Connection,
    object: AdapterObject,
    allowShorter: boolean,
    signal: AbortSignal,
  ): Promise<ReadOutcome> {
    const manifestKey = this.#names.manifestKeyOf(object.key);
    const { parts } = object;
    let incomplete: string | undefined;
    for (;;) {
      const value = await get(connection, manifestKey, signal);
      if (value === undefined) return "absent";
      if (value === "no string") return "magic";
      const manifest = decodeManifest(value);
      if (manifest === undefined || !isWhole(manifest, value)) return "magic";
      if (!fitsRoom(manifest.byteLength, object.byteLength, allowShorter)) return "layout";
      if (manifest.generation === incomplete) {
        await connection.send(manifestKey, ["EVAL", REMOVE, "1", manifestKey, incomplete], signal);
        return "absent";
      }
      const { chunkCount: count, chunkBytes: partBytes, byteLength, generation } = manifest;
      const chunkPrefix = this.#names.chunkPrefixOf(manifestKey, generation);
      const readChunk = (index: number, stop: AbortSignal) =>
        get(connection, `${chunkPrefix}${index}`, stop);
      const split = { byteLength, partBytes, count };
      if (await readSplit(split, Infinity, signal, parts, readChunk)) {
        if (signal.aborted) return "absent";
        const start = count * partBytes;
        writeParts(parts, start, value.subarray(MANIFEST_BYTES + manifest.keyLength));
        return "filled";
      }
      if (signal.aborted) return "absent";
      // Another store may have replaced the object meanwhile; reading the manifest again shows
      // that.
      incomplete = manifest.generation;
    }
  }
}

/**
 * The value under a server key; `undefined` if there is none. Other clients may keep other types.
 */
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

/** Whether a value has all the bytes that its manifest declares. */
function isWhole(manifest: ObjectManifest, value: Buffer): boolean {
  const { byteLength, chunkCount, chunkBytes, keyLength } = manifest;
  const inlineBytes = byteLength - chunkCount * chunkBytes;
  if (chunkCount > MAX_CHUNKS || inlineBytes <= -chunkBytes && chunkCount > 0) return false;
  return value.byteLength === MANIFEST_BYTES + keyLength + Math.max(0, inlineBytes);
}
