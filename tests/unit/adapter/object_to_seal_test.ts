import { assertEquals, assertNotEquals } from "@std/assert";
import { ObjectWithTrailer } from "../../../src/adapter/object_to_seal.ts";
import { bytesWithTrailer, tailBytes, verifyObject } from "../../../src/adapter/object_trailer.ts";
import { crc32OfParts } from "../../../src/base/checksum.ts";
import { addChecksums } from "../../../src/base/seal.ts";
import { testBytes, testKey, testLayout } from "../../support/objects.ts";

Deno.test("the trailer is written when the parts are first read, and not before", () => {
  const key = testKey(1);
  const layout = testLayout(100);
  const pieces = [testBytes(key, 100), new Uint8Array(tailBytes(key))];
  const object = new ObjectWithTrailer(key, layout, pieces);
  assertEquals(object.byteLength, bytesWithTrailer(key, layout));
  assertNotEquals(verifyObject(key, layout, pieces), null);
  assertEquals(verifyObject(key, layout, object.parts), null);
});

Deno.test("the trailer is written once: later changes of the payload are detected", () => {
  const key = testKey(2);
  const layout = testLayout(100);
  const payload = testBytes(key, 100);
  const object = new ObjectWithTrailer(key, layout, [payload, new Uint8Array(tailBytes(key))]);
  assertEquals(verifyObject(key, layout, object.parts), null);
  payload[50] = (payload[50] ?? 0) ^ 1;
  assertEquals(verifyObject(key, layout, object.parts), "payload-checksum");
});

Deno.test("threads get the parts without a trailer, and write the same one", () => {
  const key = testKey(3);
  const layout = testLayout(100);
  const payload = testBytes(key, 100);
  const written = new Uint8Array(tailBytes(key));
  const object = new ObjectWithTrailer(key, layout, [payload, written]);
  const { parts, seal } = ObjectWithTrailer.partsToSeal(object);
  assertEquals([...written], [...new Uint8Array(tailBytes(key))], "not written yet");
  const tail = seal?.tail.slice() ?? new Uint8Array();
  addChecksums(tail, crc32OfParts(parts, seal?.payloadBytes ?? 0));
  assertEquals(object.parts[1], tail);
  assertEquals(ObjectWithTrailer.partsToSeal(object).seal, undefined);
  const other = { key, parts: [payload], byteLength: 100 };
  assertEquals(ObjectWithTrailer.partsToSeal(other), { parts: other.parts, seal: undefined });
});
