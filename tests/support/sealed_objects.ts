import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { GuardedObject } from "../../src/l2/adapter_guard.ts";
import { bytesWithTrailer, tailBytes, writeTrailer } from "../../src/adapter/object_trailer.ts";
import { testBytes } from "./objects.ts";

/** The object that belongs under a key, sealed: its payload, and what stands behind it. */
export function sealedObject(key: ObjectKey, layout: ObjectLayout): GuardedObject {
  const payload = testBytes(key, layout.byteLength);
  const tail = new Uint8Array(tailBytes(key));
  writeTrailer(key, layout, [payload, tail]);
  const byteLength = payload.byteLength + tail.byteLength;
  return { key, layout, parts: [payload, tail], byteLength };
}

/** Room to load the object of a key into. */
export function emptyObject(key: ObjectKey, layout: ObjectLayout): GuardedObject {
  const parts = [new Uint8Array(layout.byteLength), new Uint8Array(tailBytes(key))];
  return { key, layout, parts, byteLength: bytesWithTrailer(key, layout) };
}
