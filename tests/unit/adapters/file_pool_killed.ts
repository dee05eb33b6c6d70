import { sha256 } from "../../../src/base/digest.ts";
import type { AdapterObject, ObjectKey } from "../../../src/adapter/contract.ts";

/** Number of objects that the killed process stores. */
export const OBJECTS = 10;
/** Number of them that it stores only once. */
export const STEADY_OBJECTS = 3;
/** Bytes of an object. */
export const KILLED_BYTES = 2 ** 20 + 64;
/** Number of distinct versions. */
export const VERSIONS = 7;
/** The pool, with fewer slots than objects. */
export const KILLED_POOL = { slots: 8, params: { "slot_bytes": KILLED_BYTES, files: 2 } };

const PIECE = 32;

/**
 * One version of an object: its id and version are repeated throughout, so that mixed bytes are
 * detected.
 */
export function killedObject(key: ObjectKey, version: number): AdapterObject {
  const name = new TextEncoder().encode(`${key.id} version ${version % VERSIONS}`);
  const piece = sha256(name);
  const bytes = new Uint8Array(KILLED_BYTES);
  for (let at = 0; at < bytes.byteLength; at += PIECE) bytes.set(piece, at);
  const parts = [bytes.subarray(0, 2 ** 20), bytes.slice(2 ** 20)];
  return { key, parts, byteLength: KILLED_BYTES };
}
